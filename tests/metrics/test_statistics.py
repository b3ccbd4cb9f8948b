import math
import time

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import f1_score

from rightreasons.metrics import (
    Accuracy,
    MacroF1,
    Mean,
    WorstClass,
    WorstGroup,
    bootstrap,
    mean_sd_interval,
    paired_bootstrap,
    statistics,
)


def normal(count, seed=0, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(count, generator=generator, dtype=torch.double)


def predictions(seed, target, right):
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randint(10, target.shape, generator=generator)
    return torch.where(torch.rand(target.shape, generator=generator) < right, target, guess)


def drawn_images(count, resamples, seed=0):
    """The images of each resample, read back from the numbers of copies."""
    copies = torch.cat(list(statistics._copies(count, resamples, seed)))
    return [torch.repeat_interleave(torch.arange(count), row) for row in copies]


def test_a_resample_draws_as_many_images_as_there_are():
    draws = drawn_images(50, 300)
    assert len(draws) == 300
    assert all(len(draw) == 50 for draw in draws)
    copies = torch.stack([torch.bincount(draw, minlength=50) for draw in draws]).double()
    # Each number of copies is binomial(50, 1/50): mean 1, variance 49/50.
    assert float(copies.mean()) == 1
    assert float(copies.var()) == pytest.approx(0.98, abs=0.05)
    assert len({tuple(row) for row in copies.tolist()}) == 300


def test_the_parts_make_up_all_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "COPIES_AT_ONCE", 170)
    parts = list(statistics._copies(50, 10, 0))
    assert [part.shape for part in parts] == [(3, 50)] * 3 + [(1, 50)]
    assert all((part.sum(dim=1) == 50).all() for part in parts)


def test_the_mean_against_a_loop():
    scores = normal(40)
    means = [float(scores[draw].mean()) for draw in drawn_images(40, 200)]
    estimate = bootstrap(scores, resamples=200)
    assert estimate.value == pytest.approx(float(scores.mean()))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert estimate.count == 40


def test_macro_f1_and_accuracy_against_a_loop():
    target = torch.arange(60) % 10
    prediction = predictions(1, target, 0.5)
    draws = drawn_images(60, 50)
    f1 = [f1_score(target[d], prediction[d], average="macro") for d in draws]
    cases = [(MacroF1(10), f1), (Accuracy(), [float((prediction == target)[d].double().mean()) for d in draws])]
    for statistic, expected in cases:
        estimate = bootstrap((prediction, target), statistic=statistic, resamples=50)
        assert estimate.value == pytest.approx(statistic(prediction, target))
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def exact(hits, size, confidence):
    interval = scipy.stats.binomtest(hits, size).proportion_ci(confidence, method="exact")
    return interval.low, interval.high


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bounds_of_worst_figures_against_scipy(confidence):
    target = torch.arange(90) % 5  # of 7 classes, two have no image
    right = torch.arange(90) % 4 > 0
    right[target == 2] = True
    right[target == 4] = False
    prediction, group = torch.where(right, target, 6), torch.arange(90) // 40
    cases = [
        (WorstClass(7), (prediction, target), target, 5),
        (WorstGroup(4), (prediction, target, group), group, 3),
    ]
    for statistic, arrays, of, number in cases:
        parts = [right[of == value] for value in range(number)]
        bounds = [exact(int(part.sum()), len(part), confidence ** (1 / number)) for part in parts]
        estimate = bootstrap(arrays, statistic=statistic, confidence=confidence)
        assert estimate.value == min(float(part.double().mean()) for part in parts)
        assert (estimate.low, estimate.high) == pytest.approx([min(ends) for ends in zip(*bounds, strict=True)])
        assert estimate.low <= estimate.value <= estimate.high


def test_ten_equal_classes_hold_their_own_accuracy():
    target = torch.arange(1000) // 100
    prediction = torch.where(torch.arange(1000) % 100 < 90, target, 10)
    estimate = bootstrap((prediction, target), statistic=WorstClass(11))
    assert estimate.value == pytest.approx(0.9)
    assert estimate.low < 0.9 < estimate.high


def test_a_paired_worst_figure_is_what_both_intervals_allow():
    target = torch.arange(200) % 4
    before, after = (predictions(seed, target, right) for seed, right in ((0, 0.1), (1, 0.9)))
    paired = paired_bootstrap((before, target), (after, target), statistic=WorstClass(4))
    assert paired.before == bootstrap((before, target), statistic=WorstClass(4))
    first, second = (bootstrap((guess, target), statistic=WorstClass(4), confidence=0.975) for guess in (before, after))
    difference = paired.difference
    assert difference.value == second.value - first.value
    assert (difference.low, difference.high) == pytest.approx((second.low - first.high, second.high - first.low))
    assert 0 < difference.low < difference.value < difference.high


@pytest.mark.parametrize("rates", [[0.9] * 10, [0.7] + [0.95] * 9], ids=["all equal", "one is worst"])
def test_the_worst_class_is_covered_as_often_as_it_says(rates):
    target, chance = torch.arange(1000) // 100, torch.tensor(rates).repeat_interleave(100)
    generator = torch.Generator().manual_seed(0)

    def drawn():
        return torch.where(torch.rand(1000, generator=generator) < chance, target, 10), target

    trials = [paired_bootstrap(drawn(), drawn(), statistic=WorstClass(11)) for _ in range(300)]
    assert sum(trial.before.low <= min(rates) <= trial.before.high for trial in trials) >= 0.95 * 300
    assert sum(trial.difference.low <= 0 <= trial.difference.high for trial in trials) >= 0.95 * 300
    assert all(part.low <= part.value <= part.high for trial in trials for part in trial)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_scores_that_are_all_zero_or_all_one_are_not_certain(confidence):
    zeros, ones = torch.zeros(1000), torch.ones(1000)
    none, every = bootstrap(zeros, confidence=confidence), bootstrap(ones, confidence=confidence)
    assert (none.value, none.low, none.high) == pytest.approx((0, *exact(0, 1000, confidence)))
    assert (every.value, every.low, every.high) == pytest.approx((1, *exact(1000, 1000, confidence)))
    target = torch.arange(1000) % 10
    assert bootstrap((target, target), statistic=Accuracy(), confidence=confidence) == every
    assert bootstrap(torch.tensor([math.nan] * 3 + [0.0] * 1000), confidence=confidence) == none


def test_the_difference_of_scores_without_variation():
    zeros, ones, share = torch.zeros(1000), torch.ones(1000), exact(0, 1000, 0.95)[1]
    for before, after, interval in [
        (zeros, zeros, (0, -share, share)),
        (ones, ones, (0, -share, share)),
        (zeros, ones, (1, 1 - 2 * share, 1)),
        (ones, zeros, (-1, -1, 2 * share - 1)),
    ]:
        paired = paired_bootstrap(before, after)
        assert paired.before == bootstrap(before)
        assert paired.after == bootstrap(after)
        assert (paired.difference.value, paired.difference.low, paired.difference.high) == pytest.approx(interval)


def test_one_of_two_models_without_variation():
    zeros, some = torch.zeros(200), (torch.arange(200) < 40).float()
    paired = paired_bootstrap(zeros, some)
    assert paired.before == bootstrap(zeros)
    assert paired.after == bootstrap(some)
    assert (paired.difference.low, paired.difference.high) == (paired.after.low, paired.after.high)
    same = paired_bootstrap(some, some)
    assert same.before == same.after == bootstrap(some)
    assert (same.difference.low, same.difference.high) == pytest.approx(
        (-exact(0, 200, 0.95)[1], exact(0, 200, 0.95)[1])
    )


def test_other_scores_without_variation_stay_with_the_bootstrap():
    half = torch.full((50,), 0.5)
    assert (bootstrap(half).low, bootstrap(half).high) == (0.5, 0.5)
    paired = paired_bootstrap(normal(50), normal(50))
    assert (paired.difference.low, paired.difference.high) == (0, 0)


def test_a_rare_hit_is_covered_though_most_samples_have_none():
    generator = torch.Generator().manual_seed(0)
    trials = []
    for _ in range(300):
        before, after = (torch.rand((2, 100), generator=generator) < 0.001).float()
        trials.append(paired_bootstrap(before, after, resamples=50))
    empty = [trial for trial in trials if trial.before.value == trial.after.value == 0]
    assert len(empty) > 200
    assert all(trial.before.low <= 0.001 <= trial.before.high for trial in empty)
    assert all(trial.difference.low < 0 < trial.difference.high for trial in empty)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    trials = [bootstrap(normal(80, seed=seed, mean=3.0), resamples=400, confidence=0.8) for seed in range(200)]
    covered = sum(trial.low <= 3 <= trial.high for trial in trials) / 200
    assert 0.72 <= covered <= 0.88  # 0.8 give or take 2.8 standard errors


def test_the_interval_is_that_of_the_normal_mean():
    scores = normal(2000)
    estimate = bootstrap(scores)
    half = 1.96 * float(scores.std()) / math.sqrt(2000)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_a_paired_difference_is_surer_than_two_single_figures():
    easy = normal(300)
    before, after = easy + 0.1 * normal(300, seed=1), easy + 0.2 + 0.1 * normal(300, seed=2)
    paired = paired_bootstrap(before, after)
    assert paired.difference.value == pytest.approx(float((after - before).mean()))
    assert paired.difference.low > 0
    assert paired.before == bootstrap(before)
    assert paired.after == bootstrap(after)
    unpaired = math.hypot(paired.before.high - paired.before.low, paired.after.high - paired.after.low)
    assert paired.difference.high - paired.difference.low < 0.2 * unpaired
    single = bootstrap(after - before)
    assert (paired.difference.low, paired.difference.high) == pytest.approx((single.low, single.high))


def test_the_difference_of_a_model_to_itself_is_zero():
    target = torch.arange(100) % 10
    prediction = predictions(0, target, 0.7)
    same = paired_bootstrap((prediction, target), (prediction, target), statistic=MacroF1(10)).difference
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_paired_macro_f1_resamples_the_same_images():
    target = torch.arange(200) % 10
    before, after = predictions(0, target, 0.4), predictions(1, target, 0.8)
    paired = paired_bootstrap((before, target), (after, target), statistic=MacroF1(10), resamples=60)
    gains = [
        f1_score(target[d], after[d], average="macro") - f1_score(target[d], before[d], average="macro")
        for d in drawn_images(200, 60)
    ]
    low, high = np.quantile(gains, [0.025, 0.975])
    assert (paired.difference.low, paired.difference.high) == pytest.approx((low, high))


def test_scores_that_are_not_defined_are_left_out():
    before, after = normal(30), normal(30, seed=1)
    holes = before.clone(), after.clone()
    holes[0][:4] = math.nan
    holes[1][2:7] = math.nan
    assert bootstrap(holes[0]) == bootstrap(before[4:])
    assert Mean()(holes[0]) == pytest.approx(float(before[4:].mean()))
    paired = paired_bootstrap(*holes)
    assert paired == paired_bootstrap(before[7:], after[7:])
    assert [part.count for part in paired] == [23, 23, 23]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_have_no_interval(count):
    estimate = bootstrap(normal(count))
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert math.isnan(estimate.value) is (count == 0)
    assert estimate.count == count
    assert [part.count for part in paired_bootstrap(normal(count), normal(count))] == [count] * 3


def test_the_seed_decides_the_draw():
    scores = normal(100)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = bootstrap(scores, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bootstrap(scores, seed=3) == first
    assert bootstrap(scores, seed=4) != first


def test_more_confidence_is_a_wider_interval():
    scores = normal(100)
    narrow, wide = bootstrap(scores, confidence=0.5), bootstrap(scores, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_scores_of_zero_and_one_may_be_booleans():
    scores = torch.arange(50) < 20
    assert bootstrap(scores) == bootstrap(scores.float())


def test_many_images_are_counted_exactly():
    target = torch.arange(70_001) % 2
    prediction = target.clone()
    prediction[0] = 1
    worst = bootstrap((prediction, target), statistic=WorstClass(2))
    assert worst.value == 35_000 / 35_001
    estimate = bootstrap((prediction, target), statistic=MacroF1(2), resamples=20)
    assert estimate.value == pytest.approx(70_000 / 70_001, abs=1e-9)
    assert 1 - 1e-4 < estimate.low <= estimate.high <= 1


def seconds(call):
    """The best of two, so that a busy machine does not fail the test."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_ten_thousand_images_take_under_two_seconds():
    target = torch.arange(10_000) % 10
    before, after = predictions(0, target, 0.6), predictions(1, target, 0.9)
    assert seconds(lambda: paired_bootstrap(normal(10_000), normal(10_000))) < 2
    assert seconds(lambda: paired_bootstrap((before, target), (after, target), statistic=MacroF1(10))) < 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resamples": 0}, "at least 1 resample"),
        ({"confidence": 0.0}, "confidence between 0 and 1"),
        ({"confidence": 95.0}, "confidence between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(normal(10), **settings)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected scores with one entry an image"):
        bootstrap((normal(3), normal(3)))
    with pytest.raises(ValueError, match="expected prediction, target with one entry an image"):
        bootstrap(normal(3), statistic=MacroF1(2))
    with pytest.raises(ValueError, match="same images twice, got 3 and 4"):
        paired_bootstrap(normal(3), normal(4))
    with pytest.raises(ValueError, match="infinity"):
        bootstrap(torch.tensor([1.0, math.inf]))


def test_seeds_against_scipy():
    values = [0.912, 0.934, 0.925, 0.941, 0.918]
    summary = mean_sd_interval(values)
    low, high = scipy.stats.t.interval(0.95, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert (summary.low, summary.high) == pytest.approx((low, high))
    assert summary.count == 5


def test_one_seed_has_no_spread_and_none_is_refused():
    summary = mean_sd_interval([0.5])
    assert summary.mean == 0.5
    assert all(math.isnan(value) for value in (summary.sd, summary.low, summary.high))
    with pytest.raises(ValueError, match="at least one value"):
        mean_sd_interval([])

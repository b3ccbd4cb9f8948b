import math
import warnings

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score

from rightreasons.metrics import (
    MacroF1,
    WorstClass,
    WorstGroup,
    accuracy,
    classification_report,
    macro_f1,
    per_class_accuracy,
    worst_class_accuracy,
    worst_group_accuracy,
)


def labels(seed, *, count=200, classes=7):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (count,), generator=generator)
    guess = torch.randint(classes, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.6, target, guess), target


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [7, 40], ids=["all classes occur", "some do not"])
def test_against_scikit_learn(seed, classes):
    count = 200 if classes == 7 else 25
    prediction, target = labels(seed, count=count, classes=classes)
    assert accuracy(prediction, target) == pytest.approx(accuracy_score(target, prediction))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's note on classes without a prediction
        expected = f1_score(target, prediction, average="macro")
    assert macro_f1(prediction, target, classes=classes) == pytest.approx(expected)
    recall = recall_score(target, prediction, average=None, labels=sorted(set(target.tolist())))
    assert worst_class_accuracy(prediction, target) == pytest.approx(recall.min())
    shares = per_class_accuracy(prediction, target, classes=classes)
    assert shares.shape == (classes,)
    assert shares[~shares.isnan()].tolist() == pytest.approx(recall.tolist())


def test_classes_that_do_not_occur():
    prediction, target = torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0])
    # Class 0: F1 = 4 / 5. Class 1 does not occur: left out. Class 2 is only predicted: 0.
    assert macro_f1(prediction, target, classes=3) == pytest.approx(0.4)
    assert worst_class_accuracy(prediction, target, classes=3) == pytest.approx(2 / 3)
    shares = per_class_accuracy(prediction, target, classes=3).tolist()
    assert shares[0] == pytest.approx(2 / 3)
    assert math.isnan(shares[1])
    assert math.isnan(shares[2])


def test_worst_group_against_a_loop():
    prediction, target = labels(1)
    group = torch.randint(5, (200,)) * 2
    shares = [float((prediction == target)[group == g].double().mean()) for g in (0, 2, 4, 6, 8)]
    assert worst_group_accuracy(prediction, target, group) == pytest.approx(min(shares))


def test_the_report_holds_the_same_figures():
    prediction, target = labels(2)
    group = target % 2
    report = classification_report(prediction, target, classes=9, group=group)
    assert report.accuracy == accuracy(prediction, target)
    assert report.macro_f1 == macro_f1(prediction, target)
    assert len(report.per_class) == 9
    assert report.worst_class == worst_class_accuracy(prediction, target) == min(report.per_class[:7])
    assert report.worst == report.per_class.index(report.worst_class)
    assert report.worst_group == worst_group_accuracy(prediction, target, group)
    assert report.count == 200
    assert classification_report(prediction, target).worst_group is None


def test_no_images_give_nan():
    nothing = torch.zeros(0, dtype=torch.long)
    report = classification_report(nothing, nothing, classes=2)
    assert all(math.isnan(v) for v in (report.accuracy, report.macro_f1, report.worst_class, *report.per_class))
    assert report.count == 0


@pytest.mark.wrong_types
def test_a_label_out_of_range_is_refused():
    good, bad = torch.tensor([0, 1]), torch.tensor([0, 3])
    for figure in (MacroF1(3), WorstClass(3)):
        with pytest.raises(ValueError, match="expected 0 to 2, got 3"):
            figure(good, bad)
    with pytest.raises(ValueError, match="expected 0 to 2, got -1"):
        WorstGroup(3)(good, good, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match="class numbers"):
        macro_f1(torch.rand(2), good)


@pytest.mark.wrong_types
def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected prediction, target with one entry an image"):
        accuracy(torch.zeros(3, 10), torch.zeros(3))
    with pytest.raises(ValueError, match="expected prediction, target with one entry an image"):
        macro_f1(torch.zeros(3).long(), torch.zeros(2).long())


@pytest.mark.parametrize("figure", [MacroF1, WorstClass, WorstGroup])
def test_no_classes_are_refused(figure):
    with pytest.raises(ValueError, match="expected at least 1"):
        figure(0)
    with pytest.raises(ValueError, match="expected at least 1"):
        macro_f1(torch.tensor([0]), torch.tensor([0]), classes=0)

import pytest
import torch

from rightreasons.training.loading import epoch_order, fetch, share, stream_seed


def test_an_epoch_holds_every_image_once():
    order = epoch_order(25, 8, seed=0, epoch=0)
    assert [len(rows) for rows in order] == [8, 8, 8, 1]
    assert sorted(torch.cat(order).tolist()) == list(range(25))
    assert [len(rows) for rows in epoch_order(25, 8, seed=0, epoch=0, drop_last=True)] == [8, 8, 8]
    assert [len(rows) for rows in epoch_order(5, 8, seed=0, epoch=0, drop_last=True)] == [5]


def test_the_order_follows_from_seed_and_epoch():
    first = torch.cat(epoch_order(50, 8, seed=1, epoch=3))
    assert first.equal(torch.cat(epoch_order(50, 8, seed=1, epoch=3)))
    assert not first.equal(torch.cat(epoch_order(50, 8, seed=1, epoch=4)))
    assert not first.equal(torch.cat(epoch_order(50, 8, seed=2, epoch=3)))


def test_seeds_of_different_places_differ():
    seeds = {stream_seed(s, e, t, p) for s in range(5) for e in range(5) for t in range(5) for p in range(3)}
    assert len(seeds) == 375
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("size", "processes"), [(8, 2), (7, 2), (1, 2), (1, 3), (5, 4)])
def test_shares_are_equal_and_cover_the_batch(size, processes):
    rows = torch.arange(100, 100 + size)
    shares = [share(rows, process, processes) for process in range(processes)]
    assert len({len(part) for part in shares}) == 1
    assert set(torch.cat(shares).tolist()) == set(rows.tolist())
    assert len(torch.cat(shares)) - size < processes


def test_workers_bring_the_same_batches_and_leave_the_generator_alone(toy):
    data, order = toy(), epoch_order(96, 40, seed=0, epoch=0)
    before = torch.get_rng_state()
    for direct, worked in zip(fetch(data, order), fetch(data, order, workers=1), strict=True):
        assert direct.inputs.equal(worked.inputs)
        assert direct.index.equal(worked.index)
        assert direct.relevant.equal(worked.relevant)
    assert torch.get_rng_state().equal(before)

import pytest
import torch

from rightreasons.data.arrays import Subset
from rightreasons.training import evaluate, modes_kept, predict


def test_predictions_are_those_of_evaluation_mode_whatever_the_batch_size(tiny, toy):
    model, data = tiny(dropout=0.5), toy()
    model.eval()
    with torch.no_grad():
        expected = model(data.batch(torch.arange(96)).inputs)
    model.train()
    for size in (7, 96, 1000):
        logits = predict(model, data, batch_size=size)
        torch.testing.assert_close(logits, expected)
        assert not logits.requires_grad
    assert all(module.training for module in model.modules())


def test_accuracy_counts_right_ones(tiny, toy):
    model, data = tiny(), toy()
    found = evaluate(model, data)
    right = sum(int(a == b) for a, b in zip(found.logits.argmax(1).tolist(), data.target.tolist(), strict=True))
    assert found.accuracy == right / 96
    assert found.predictions.shape == (96,)


def test_each_module_gets_its_own_mode_back(tiny):
    model = tiny()
    model.network[4].eval()
    with modes_kept(model):
        model.eval()
        model.network[4].train()
    assert not model.network[4].training
    assert model.network[0].training


def test_nothing_to_predict_is_refused(tiny, toy):
    with pytest.raises(ValueError, match="expected images"):
        predict(tiny(), Subset(toy(), []))
    with pytest.raises(ValueError, match="batch size"):
        predict(tiny(), toy(), batch_size=0)

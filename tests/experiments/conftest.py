import pytest
import torch

from rightreasons.experiments import (
    DataConfig,
    ModelConfig,
    Question,
    Resources,
    RunConfig,
    TermConfig,
    TrainingConfig,
    open_subject,
    train,
)
from rightreasons.experiments.build import build_model
from tests.pictures import SIDE, image_folder, network_file

RESOURCES = Resources("cpu", progress=False)
QUICK = RunConfig(
    data=DataConfig(name="digits", decoy="decoy/rrr", decoy_size=2),
    model=ModelConfig(name="mlp", settings={"hidden": [20]}),
    training=TrainingConfig(epochs=4, batch_size=128, lr=0.01),
    terms={"rrr": TermConfig("rrr", weight=1.0)},
)


@pytest.fixture(scope="session")
def plain_and_revised(tmp_path_factory):
    """Two finished runs on the digits: without and with RRR."""
    from dataclasses import replace

    out = tmp_path_factory.mktemp("runs")
    plain = train(replace(QUICK, terms={}), out / "plain", RESOURCES)
    return plain, train(QUICK, out / "revised", RESOURCES)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Thirty photos with masks and a network."""
    folder = tmp_path_factory.mktemp("own")
    photos, net = image_folder(folder / "photos"), network_file(folder / "net.py")
    model = ModelConfig(f"{net}:build")
    torch.save(build_model(model, (3, SIDE, SIDE), 2, seed=1).network.state_dict(), folder / "net.pt")
    return open_subject(folder / "net.pt", Question(DataConfig(str(photos)), model), RESOURCES)

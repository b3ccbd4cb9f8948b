import pytest

from rightreasons.experiments import DataConfig, ModelConfig, Resources, RunConfig, TermConfig, TrainingConfig, train

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

"""Tables for tests."""

from rightreasons.experiments import Resources
from rightreasons.experiments.table import read_table

QUICK = """
title = "Quick"
description = "Two epochs."
source = "our own"
seeds = 2

[run.data]
name = "digits"
decoy = "decoy/rrr"
decoy_size = 2

[run.model]
name = "mlp"
settings = { hidden = [8] }

[run.training]
epochs = 1
batch_size = 256

[arms.RRR.terms.rrr]
loss = "rrr"
weight = "balance"

[[published]]
arm = "RRR"
value = 90.5
sd = 1.0
source = "nowhere"
"""

MORE = """
columns = ["accuracy", "swap", "probe", "accuracy_gain"]

[arms.cheap]
controls = false
training = { epochs = 2 }
terms.rrr = { loss = "rrr", weight = "balance" }

[arms.wide]
model = { name = "mlp", settings = { initial_sd = 0.1 } }

[arms.linear]
model = { name = "test_of_tables:linear", settings = { bias = false } }

[arms.tuned]
select = { key = "terms.rrr.weight", values = [0.5, 2.0], by = "swap", share = 0.2, swaps = 2 }
terms.rrr = { loss = "rrr" }

[[vary]]
key = "data.annotated"
label = "masks"
values = [0.1, 0.5, 1.0]
names = ["10", "50", "all"]
arms = ["RRR", "tuned"]

[[vary]]
key = "terms.*.weight"
values = [3.0, 4.0]
controls = "none"
"""

RESOURCES = Resources("cpu", progress=False)


def more_plan(folder):
    """The quick table with everything that an arm may say."""
    top, rest = MORE.split("\n\n", 1)
    (folder / "more.toml").write_text(top.strip() + QUICK + rest)
    return read_table(str(folder / "more.toml"))

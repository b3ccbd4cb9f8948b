"""A published table, run again: every arm over several seeds, with the controls that make a number mean something."""

from rightreasons.experiments.table.columns import COLUMNS, DEFAULT_COLUMNS, Column, column_title, column_told
from rightreasons.experiments.table.plan import (
    BOUND,
    MARKS,
    PLAIN,
    Entry,
    PublishedValue,
    TablePlan,
    Variation,
    Vary,
    slug,
)
from rightreasons.experiments.table.reading import read_table, tables
from rightreasons.experiments.table.records import Records, Unread, mixed
from rightreasons.experiments.table.rows import TableRow, settled, table_record, table_rows, write_csv, write_json
from rightreasons.experiments.table.running import RunsFailed, run_table
from rightreasons.experiments.table.verdicts import (
    Judged,
    idle_controls,
    is_control,
    judged,
    lacking,
    mask_verdicts,
    worst_classes,
)
from rightreasons.experiments.table.weights import weight_verdicts

__all__ = [
    "BOUND",
    "COLUMNS",
    "DEFAULT_COLUMNS",
    "MARKS",
    "PLAIN",
    "Column",
    "Entry",
    "Judged",
    "PublishedValue",
    "Records",
    "RunsFailed",
    "TablePlan",
    "TableRow",
    "Unread",
    "Variation",
    "Vary",
    "column_title",
    "column_told",
    "idle_controls",
    "is_control",
    "judged",
    "lacking",
    "mask_verdicts",
    "mixed",
    "read_table",
    "run_table",
    "settled",
    "slug",
    "table_record",
    "table_rows",
    "tables",
    "weight_verdicts",
    "worst_classes",
    "write_csv",
    "write_json",
]

"""Maps on disk: shards of many images, each written whole, as safetensors or Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rightreasons.core import CorruptData, MissingExtra
from rightreasons.models.checkpoints import write_whole

Format = Literal["safetensors", "parquet"]
Columns = Mapping[str, Tensor]

SIZE = 1000
SHARD_BYTES = 2**27
"""A shard is held in memory before it is written, so large maps of many methods make it smaller than ``SIZE``."""
PAGE = 100
"""Rows that are read at once from a Parquet shard."""


@dataclass(frozen=True)
class Storage:
    """How maps are written.

    Attributes:
        size: Images a shard; ``None`` takes 1,000, fewer where so many maps would be more than 128 MiB.
        format: ``safetensors`` or ``parquet``.
        half: Store each map as float16, divided by its largest absolute value, which stands beside it.

    Raises:
        ValueError: No image a shard, or another format.
    """

    size: int | None = None
    format: Format = "safetensors"
    half: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"expected at least one image a shard, got {self.size}")
        if self.format not in get_args(Format):
            raise ValueError(f"expected format {' or '.join(get_args(Format))}, got {self.format!r}")

    def rows(self, map_values: int) -> int:
        """Images a shard, when all maps of an image together have so many values."""
        number = 2 if self.half else 4
        return self.size or max(1, min(SIZE, SHARD_BYTES // max(1, number * map_values)))


class Shard(NamedTuple):
    """A shard: its file and the first and one-past-last image that it holds."""

    path: Path
    start: int
    stop: int


def shards_of(folder: Path, images: int, size: int, format: Format) -> list[Shard]:
    """All shards of so many images."""
    count = -(-images // size)
    return [
        Shard(folder / f"{k:05d}-of-{count:05d}.{format}", k * size, min(images, (k + 1) * size)) for k in range(count)
    ]


def write_shard(path: Path, columns: Columns, about: Mapping[str, Any]) -> None:
    """Write the rows of one shard, whole or not at all.

    Args:
        path: Ends in ``.safetensors`` or ``.parquet``.
        columns: One row an image: maps (N, 1, H, W), numbers (N,).
        about: What is written into the file's metadata beside it.

    Raises:
        MissingExtra: Parquet, and pyarrow is not installed.
        NotWritten: A full disk, for example.
    """
    told = {"rightreasons": json.dumps(about, sort_keys=True)}
    whole = {name: values.contiguous() for name, values in columns.items()}
    parquet = path.suffix == ".parquet"
    write_whole(path, _parquet(whole, told) if parquet else safetensors.torch.save(whole, told))


def read_shard(path: Path, names: Sequence[str] | None = None, rows: slice | None = None) -> dict[str, Tensor]:
    """Columns of a shard as they are stored; only what is asked for is read.

    Raises:
        CorruptData: The file is damaged or has no such column.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    try:
        return _read_parquet(path, names, rows) if path.suffix == ".parquet" else _read_safetensors(path, names, rows)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptData(f"{path} is damaged ({reason}): remove it and run the same command again") from error


def restored(
    maps: Float[Tensor, "rows 1 height width"], largest: Float[Tensor, " rows"]
) -> Float[Tensor, "rows 1 height width"]:
    """Raw maps from stored ones: those of float16 are a share of their largest absolute value."""
    return maps if maps.dtype != torch.float16 else maps.float() * _scale(largest)


def packed(
    maps: Float[Tensor, "rows 1 height width"], largest: Float[Tensor, " rows"]
) -> Float[Tensor, "rows 1 height width"]:
    """Maps as float16, divided by their largest absolute value; so none overflows or vanishes."""
    return (maps.double() / _scale(largest).double()).half()


def _scale(largest: Float[Tensor, " rows"]) -> Float[Tensor, "rows 1 1 1"]:
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return scale.view(-1, 1, 1, 1)


def _read_safetensors(path: Path, names: Sequence[str] | None, rows: slice | None) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        asked = file.keys() if names is None else names
        if rows is None:
            return {name: file.get_tensor(name) for name in asked}
        return {name: file.get_slice(name)[rows] for name in asked}


def pyarrow_parquet() -> tuple[ModuleType, ModuleType]:
    """The libraries that Parquet needs.

    Raises:
        MissingExtra: They are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'rightreasons[parquet]'") from error
    return pyarrow, pyarrow.parquet


def _parquet(columns: Columns, told: Mapping[str, str]) -> bytes:
    pa, parquet = pyarrow_parquet()
    arrays, fields = [], []
    for name, values in columns.items():
        array = pa.array(values.reshape(-1).numpy())
        size = values[0].numel()
        if values.ndim > 1:
            array = pa.FixedSizeListArray.from_arrays(array, size)
        shape = json.dumps(list(values.shape[1:])) if values.ndim > 1 else ""
        arrays.append(array)
        fields.append(pa.field(name, array.type, nullable=False, metadata={"shape": shape}))
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=dict(told)))
    buffer = io.BytesIO()
    # Maps are noise to a compressor but for their zeros; a dictionary of their values would only cost.
    parquet.write_table(table, buffer, row_group_size=PAGE, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def _read_parquet(path: Path, names: Sequence[str] | None, rows: slice | None) -> dict[str, Tensor]:
    _, parquet = pyarrow_parquet()
    with parquet.ParquetFile(path) as file:
        count = file.metadata.num_rows
        start, stop, _ = (rows or slice(None)).indices(count)
        groups = list(range(start // PAGE, -(-stop // PAGE)))
        asked = None if names is None else list(names)
        table = file.read_row_groups(groups, columns=asked).slice(start - PAGE * (start // PAGE), stop - start)
        return dict(_tensors(table, asked or file.schema_arrow.names))


def _tensors(table: Any, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        shape = json.loads(table.schema.field(name).metadata[b"shape"] or "[]")
        column = table.column(name).combine_chunks()
        flat = column.flatten() if shape else column
        # A copy, since torch does not take memory that must not be written to.
        values = np.array(flat.to_numpy(zero_copy_only=False))
        yield name, torch.from_numpy(values).view(table.num_rows, *shape)

"""One JSON file a run: from it every number can be made again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rightreasons.core import CorruptData
from rightreasons.models.checkpoints import write_whole

LIBRARIES = ("rightreasons", "torch", "numpy", "accelerate", "scikit-learn")


class OtherFile(CorruptData):
    """JSON that is about something else than a run."""


@dataclass(frozen=True)
class Record:
    """What was run, where, and what came out.

    Attributes:
        kind: ``train`` or ``prove``, for example.
        config: The resolved configuration.
        results: Numbers by name.
        history: One mapping an epoch.
        seconds: Duration.
        environment: Versions, device, commit.
        created: UTC, ISO 8601.
        key: Digest of kind and configuration: two records with the same key are of the same run.
    """

    kind: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    history: Sequence[Mapping[str, float]] = ()
    seconds: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    key: str = ""

    def write(self, path: str | Path) -> Path:
        """Write it whole or not at all; NaN and infinities become null.

        Raises:
            NotWritten: A full disk, for example; an old record stays.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_finite(asdict(self)), indent=1, allow_nan=False) + "\n"
        write_whole(path, text.encode())
        return path

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """A record from its file.

        Raises:
            OtherFile: It is JSON about something else.
            CorruptData: It is no record.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if isinstance(found, dict) and not {"kind", "config"} & set(found):
                raise OtherFile(f"{path} is no record of a run: it has neither kind nor config")
            record = cls(**found)
        except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
            raise CorruptData(f"{path} is no record of a run: {error}") from error
        if not (isinstance(record.config, dict) and isinstance(record.results, dict)):
            raise CorruptData(f"{path} is no record of a run: expected tables as config and results")
        return record


def make_record(kind: str, config: Mapping[str, Any], results: Mapping[str, Any], **more: Any) -> Record:
    """A record of what has just been run here."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(kind, config, results, created=created, key=key_of(kind, config), **more)


def key_of(kind: str, config: Mapping[str, Any]) -> str:
    """Digest of a resolved configuration."""
    text = json.dumps([kind, config], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment(device: str) -> dict[str, str]:
    """Versions, machine and commit that a number depends on."""
    import torch

    found = {name: version(name) for name in LIBRARIES}
    return {
        **found,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "threads": str(torch.get_num_threads()),
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of this checkout, with a mark where files differ from it; ``released`` for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return "released"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    if shutil.which("git") is None:
        return "unknown (git is not installed)"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"unknown ({done.stderr.strip()})"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value

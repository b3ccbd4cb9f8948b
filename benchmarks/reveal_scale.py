"""Whether `rightreasons reveal` holds its promises at scale: memory that stays flat, and a kill that costs nothing.

    python benchmarks/reveal_scale.py --out benchmarks/records/reveal_scale.json

Memory: the command explains a folder of 1,000 and one of 10,000 small images by saliency and Grad-CAM, each in a
process of its own; what is compared is the largest resident memory of each process, as the system counts it. Beside it
stands what the list of the folder's files takes, which is all that grows.

Resumption: the command explains 1,000 images of 3x32x32 by every method of the catalogue with its default settings. One
process runs through; beside it another one is killed (SIGKILL) when half its shards are there, and started again. Index
and shards of both must be the same, byte by byte. Images and weights are random: nothing here depends on them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rightreasons.data import ImageFolder
from rightreasons.experiments import environment

NETWORK = """
from torch import nn


def build(shape, classes):
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    )
"""
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1_000, help="images of the smaller folder")
    parser.add_argument("--many", type=int, default=10_000, help="images of the larger folder")
    parser.add_argument("--all", type=int, default=1_000, help="images that every method explains")
    parser.add_argument("--out", type=Path, help="JSON record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network(folder)
        found = {
            "memory": memory(folder, options.few, options.many),
            "resumption": resumption(folder, options.all),
            "environment": environment("cpu"),
        }
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def network(folder: Path) -> None:
    (folder / "net.py").write_text(NETWORK)
    torch.manual_seed(0)
    scope: dict = {}
    exec(NETWORK, scope)
    torch.save(scope["build"]((3, 32, 32), CLASSES).state_dict(), folder / "net.pt")


def image_folder(root: Path, images: int) -> Path:
    """Noise of 32x32, as many of each class."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = root / f"class{number % CLASSES}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compress_level=0)
    return root


def started(folder: Path, data: Path, out: Path, *more: str) -> subprocess.Popen:
    """The command, with one thread, as a user types it."""
    model = ["--model", str(folder / "net.py") + ":build", "--data", str(data), "--device", "cpu"]
    command = [sys.executable, "-m", "rightreasons", "reveal", str(folder / "net.pt"), *model]
    once = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--images", "all", *more, "--out", str(out)], env=once, stdout=subprocess.DEVNULL
    )


def finished(process: subprocess.Popen) -> float:
    """Its largest resident memory, in MiB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"reveal ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def listed(data: Path) -> int:
    """Bytes that the list of a folder's files takes, once each has been opened."""
    tracemalloc.start()
    files = ImageFolder(data)
    for start in range(0, len(files), 100):
        files.batch(torch.arange(start, min(start + 100, len(files))))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size


def memory(folder: Path, few: int, many: int) -> dict:
    peaks, seconds, lists = {}, {}, {}
    for images in (few, many):
        data, begin = image_folder(folder / f"photos{images}", images), time.perf_counter()
        methods = ("--method", "saliency", "--method", "grad_cam", "--shard-size", "500")
        peaks[images] = finished(started(folder, data, folder / f"maps{images}", *methods))
        seconds[images] = time.perf_counter() - begin
        lists[images] = listed(data)
    return {
        "peak_mib": {str(images): round(peak, 1) for images, peak in peaks.items()},
        "growth_mib": round(peaks[many] - peaks[few], 1),
        "growth_of_the_list_of_files_mib": round((lists[many] - lists[few]) / 1024**2, 1),
        "bytes_an_image_more": round(1024**2 * (peaks[many] - peaks[few]) / (many - few)),
        "seconds": {str(images): round(value, 1) for images, value in seconds.items()},
    }


def resumption(folder: Path, images: int) -> dict:
    data, begin = image_folder(folder / "all", images), time.perf_counter()
    ask = ("--method", "all", "--shard-size", str(max(1, images // 10)))
    whole = started(folder, data, folder / "whole", *ask)
    stopped = started(folder, data, folder / "stopped", *ask)
    shards = folder / "stopped" / "shards"
    while stopped.poll() is None and len(list(shards.glob("*-of-*"))) < 5:
        time.sleep(0.05)
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in shards.glob("*-of-*")}
    finished(started(folder, data, folder / "stopped", *ask))
    peak = finished(whole)
    record = json.loads((folder / "whole" / "reveal.json").read_text())["results"]
    return {
        "images": images,
        "methods": list(record["methods"]),
        "left_out": record["unfit"],
        "shards": len(record["shards"]),
        "shards_when_killed": len(kept),
        "shards_made_again": sum((shards / name).stat().st_mtime_ns != when for name, when in kept.items()),
        "same_index": digest(folder / "whole", "index.*") == digest(folder / "stopped", "index.*"),
        "same_shards": digest(folder / "whole", "shards/*") == digest(folder / "stopped", "shards/*"),
        "peak_mib": round(peak, 1),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def digest(folder: Path, pattern: str) -> dict[str, str]:
    paths = sorted(folder.glob(pattern))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.suffix != ".html"}


if __name__ == "__main__":
    main()

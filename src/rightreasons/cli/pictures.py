"""Pictures of the user's own that a command names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def picture_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The pictures and folders as text, each folder with pictures in it.

    Raises:
        ValueError: A folder holds no picture.
    """
    from rightreasons.data.folder import pictures_in

    for path in filter(Path.is_dir, paths):
        if not pictures_in(path):
            raise ValueError(_without(path, sorted(entry.name for entry in path.iterdir() if entry.is_dir())))
    return tuple(map(str, paths))


def _without(path: Path, folders: Sequence[str]) -> str:
    told = f"the folder {path} holds no picture"
    if not folders:
        return told
    some = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
    hint = f"name one with --image {path / folders[0]}"
    return f"{told} directly, where pictures are looked for, but sub-folders ({some}): {hint}"


def squashed(paths: Sequence[Path], shape: tuple[int, int, int]) -> None:
    """Note pictures that lose their proportions in the size of the network's images.

    Args:
        paths: Pictures and folders of them.
        shape: Channels, height and width of the images.
    """
    from rightreasons.cli import show
    from rightreasons.data.folder import Proportions, pictures_in, sizes_of

    told = Proportions((shape[1], shape[2]))
    for path in paths:
        for file in pictures_in(path) if path.is_dir() else filter(Path.is_file, [path]):
            told.add(file, sizes_of(file)[1])
    if told.words:
        show.note(told.words)

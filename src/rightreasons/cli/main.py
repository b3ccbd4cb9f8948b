"""The entry point. Nothing here or in the command files imports torch before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from rightreasons import __version__
from rightreasons.cli import counterfactual, data, demo, evaluate, features, masks, prove, reveal, revise, table, train

app = typer.Typer(
    name="rightreasons",
    help="Make vision models right for the right reasons: reveal what they look at, revise it, prove the change.",
    epilog="Start with: rightreasons demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
TRAINS = ("demo", "train", "revise", "prove", "table")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command; a user's mistake is one line and exit 2, Ctrl-C is exit 130, a defect keeps its traceback."""

    @wraps(command)
    def call(**values: Any) -> None:
        try:
            command(**{name: _at_home(value) for name, value in values.items()})
        except KeyboardInterrupt:
            goes_on = "; the same command goes on where it stopped" if command.__name__ in TRAINS else ""
            typer.echo(f"interrupted{goes_on}", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            if _settings["traceback"] or not _is_mistake(error):
                raise
            typer.echo(f"error: {_one_line(error)}", err=True)
            raise typer.Exit(2) from None

    return call


def _at_home(value: Any) -> Any:
    """A leading ~ is the home folder also where the shell has left it (as in --out=~/runs)."""
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))  # noqa: PTH111 (pathlib's raises for a user that does not exist)
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111


def _is_mistake(error: Exception) -> bool:
    from rightreasons.core import RightReasonsError

    return isinstance(error, RightReasonsError | ValueError | OSError) and not isinstance(error, BrokenPipeError)


def _one_line(error: Exception) -> str:
    # Python's own "[Errno 2] No such file or directory: 'x'" the other way round.
    named = type(error).__module__ == "builtins" and isinstance(error, OSError) and error.filename and error.strerror
    text = f"{error.filename}: {error.strerror}" if named else str(error)  # type: ignore[attr-defined]
    return " ".join(text.split()) or type(error).__name__


for module in (demo, data, masks, train, reveal, features, counterfactual, evaluate, revise, prove, table):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=module.EXAMPLES)(guarded(getattr(module, name)))


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def options(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Take the options that stand before the command."""
    _settings["traceback"] = traceback


_settings = {"traceback": False}


def main() -> None:
    """Run the command line."""
    # Threads that spin while another process works slow small networks tenfold; read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    for stream in (sys.stdout, sys.stderr):
        # A class name that the terminal's encoding lacks must not cost a finished training its table.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()

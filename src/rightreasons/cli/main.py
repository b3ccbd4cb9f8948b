"""The entry point. Nothing here or in the command files imports torch before a command runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from rightreasons import __version__
from rightreasons.cli import data, demo, prove, reveal, revise, train

app = typer.Typer(
    name="rightreasons",
    help="Make vision models right for the right reasons: reveal what they look at, revise it, prove the change.",
    epilog="Start with: rightreasons demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for module in (demo, data, train, reveal, revise, prove):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=module.EXAMPLES)(getattr(module, name))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Take the options that stand before the command."""
    _settings["traceback"] = traceback


_settings = {"traceback": False}


def main() -> None:
    """Run; a user's mistake is one line and exit 2, Ctrl-C is exit 130."""
    # Threads that spin while another process works slow small networks tenfold; read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on where it stopped")
        sys.exit(130)
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        # The library's own errors are all of these kinds; anything else is a defect and shows its traceback.
        if _settings["traceback"]:
            raise
        _say(f"error: {_one_line(error)}")
        sys.exit(2)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(text: str) -> None:
    typer.echo(text, err=True)

"""The `wellkit` command: a table of commands, each loaded only when it is needed."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from wellkit.cli.output import print_error, print_note
from wellkit.errors import WellkitError, WellkitWarning

# Order is the order of `wellkit --help`: the way a user walks. Each name is a module of wellkit.cli.commands with a
# Typer `app`; the modules import what they need inside their functions, so that no command pays for another.
COMMANDS = (
    "list",
    "search",
    "info",
    "download",
    "verify",
    "repair",
    "validate",
    "generate",
    "stats",
    "index",
    "speed",
    "card",
    "cache",
    "doctor",
    "train",
    "evaluate",
    "benchmark",
    "leaderboard",
    "quickstart",
)


class LazyGroup(TyperGroup):
    """A command group that knows its commands by name and imports one only when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"wellkit.cli.commands.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    name="wellkit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # our bugs keep a plain, complete traceback
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        from wellkit import __version__

        sys.stdout.write(f"wellkit {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """From public physics simulations to a score you can trust: catalog, download, load, train, score."""


def main() -> None:
    """Entry point: run a command; a known failure becomes one line on stderr and exit status 1."""
    told = warnings.showwarning
    warnings.showwarning = _show_warning
    # Python leaves nothing in the place of a stream that was closed before it began (`wellkit list >&-`).
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    try:
        app()
    except WellkitError as error:
        print_error(str(error))
        sys.exit(1)
    except BrokenPipeError:
        # `wellkit list | head`: the reader went away, which is no failure of ours. Closing stderr keeps Python
        # from complaining about the same pipe again at shutdown.
        sys.stderr.close()
        sys.exit(1)
    finally:
        warnings.showwarning = told


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of ours is for the user: one line, without the place in our source that Python would add."""
    if issubclass(category, WellkitWarning):
        print_note(f"warning: {' '.join(str(message).split())}")
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))

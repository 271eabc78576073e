"""A script as a program: how it starts, and how it ends when something is wrong."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from msth_taichi.errors import MsthError

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]

_USAGE_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"
)


def run(*commands: Callable[..., Any]) -> None:
    """Parse the command line, call the command, exit. Of several, the first argument is the command's name.

    Exit status: 0 done, 2 something the user can mend, told in one line on stderr, 130 stopped by the user.
    """
    # torch's threads spin while they wait, which beside a busy program costs a factor of two
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(status(commands, sys.argv[1:]))


def status(commands: Sequence[Callable[..., Any]], arguments: list[str]) -> int:
    """The exit status of the command called with these arguments."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    for command in commands:
        app.command()(_stoppable(command))
    try:
        result = app(arguments or ["--help"], standalone_mode=False)
    except (_StoppedError, typer.Abort):
        print("stopped; run the same command to go on", file=sys.stderr)
        return 130
    except (MsthError, OSError, *_USAGE_ERRORS) as error:
        sys.stdout.flush()
        print("error:", " ".join(_remedy(error).split()), file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


class _StoppedError(Exception):
    """Ctrl-C, which typer would turn into an exit without a word."""


def _stoppable(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def stoppable(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise _StoppedError from None

    return stoppable


def _remedy(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the disk'}: {error.strerror or error}; check the path, its permissions and space"
    return getattr(error, "format_message", error.__str__)()


def size_text(count: float) -> str:
    """Bytes in a unit that reads well, with three digits.

    Example:
        >>> size_text(1186324684)
        '1.19 GB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"

"""Scripts import each other by their bare names, as they do when one of them is run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.append(str(SCRIPTS))

from tests.scripts.file_server import FileServer  # noqa: E402


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A web server on this machine that misbehaves as it is told."""
    with FileServer() as running:
        yield running


@pytest.fixture
def call(capsys: pytest.CaptureFixture):
    """call(module.command, *arguments) -> exit status, stdout, stderr; as from the command line.

    Of a script with several commands, a tuple of them.
    """
    from program import status

    def run(command, *arguments):
        code = status(command if isinstance(command, tuple) else (command,), [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

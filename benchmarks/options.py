"""Options that every benchmark has, without what takes seconds to import."""

import argparse
import subprocess
from pathlib import Path

from msth_taichi.errors import MsthError

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small sizes, for a CPU; results named *_small")
    parser.add_argument("--arch", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json")
    parser.add_argument("--commit", default=commit(), help="default: what git says")
    return parser


def commit() -> str:
    """Abbreviated commit, with a plus sign where files differ from it; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def parse_capture(text: str) -> tuple[str, str, str]:
    """("mutant", "data/mutant", "dnerf") of "mutant=data/mutant:dnerf"."""
    name, equals, rest = text.partition("=")
    path, colon, preset = rest.rpartition(":")
    if not (name and equals and path and colon and preset):
        raise MsthError(f"--data {text}: expected NAME=PATH:PRESET")
    return name, path, preset

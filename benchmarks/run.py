"""Run every benchmark, each in a process of its own, and write its Markdown and json.

    python benchmarks/run.py                # full sizes; needs a GPU
    python benchmarks/run.py --small        # small sizes, on a CPU too, in under three minutes

A benchmark that fails does not keep the others from running; the exit status is then 1.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from options import arguments

# the training step first: where no kernel is cached yet, its first step shows what a user waits for
NAMES = ("training_step", "encoding", "sampling", "composite")


def main() -> None:
    options = arguments(__doc__).parse_args()
    failed = [name for name in NAMES if not run(name, options)]
    if failed:
        print("failed:", ", ".join(failed), file=sys.stderr)
        sys.exit(1)


def run(name: str, options: argparse.Namespace) -> bool:
    """Run one benchmark and say whether it succeeded; only its errors are printed."""
    start = time.monotonic()
    done = subprocess.run(command(name, options), stdout=subprocess.DEVNULL).returncode == 0
    what = f"written to {options.results}" if done else "failed"
    print(f"{name}: {what} after {time.monotonic() - start:.0f} s", flush=True)
    return done


def command(name: str, options: argparse.Namespace) -> list[str]:
    """How to start a benchmark with these options."""
    script = Path(__file__).parent / f"bench_{name}.py"
    given = ["--arch", options.arch, "--results", str(options.results), "--commit", options.commit]
    return [sys.executable, str(script), *given, *(["--small"] if options.small else [])]


if __name__ == "__main__":
    main()

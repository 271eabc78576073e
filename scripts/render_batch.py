"""Render a list of jobs without a display; processes on several GPUs and machines can share it."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from program import Overwrite, run

from msth_taichi.rendering.shards import parse_shard, torchrun_shard


def render_batch(
    jobs: Annotated[
        Path, typer.Argument(help="TOML file with a [[job]] table for each render; see docs/rendering.md.")
    ],
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Render every N-th frame from I on; default: all, or by torchrun's rank."),
    ] = None,
    arch: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Overwrite = False,
) -> int:
    """Render a list of jobs.

    Stopped at any moment, it goes on where it was. Exit status 1: some of it failed, which is listed; running it again
    renders just that.
    """
    part = torchrun_shard()  # chooses the GPU, so before torch is imported
    if shard is not None:
        part = parse_shard(shard)

    from msth_taichi.rendering.jobs import load_jobs, render_jobs

    report = render_jobs(load_jobs(jobs), shard=part, arch=arch, overwrite=overwrite)
    for line in report.lines():
        print(line)
    for failure in report.failures:
        print("error:", failure, file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    run(render_batch)

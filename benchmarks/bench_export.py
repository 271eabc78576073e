"""Runs as one small file: its size, and what its rounding costs on held-out views.

    python benchmarks/bench_export.py runs/basketball runs/mutant
    python benchmarks/bench_export.py runs/basketball --data basketball=PATH    # where the data set has moved

Every run is evaluated as `msth eval` does, before and after; nothing is written into the run folders.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import common
import torch
from common import Result, Row
from options import arguments

from msth_taichi.errors import MsthError
from msth_taichi.evaluation.evaluate import evaluate, scene_of
from msth_taichi.exporting.compact import export_compact
from msth_taichi.exporting.model_file import Bits
from msth_taichi.training.run import load_run

NAME = "export"

BITS: tuple[Bits, ...] = (16, 8)


def measure_run(path: Path, data: Path | None, every: int | None) -> list[Row]:
    """One row for each number of bits.

    Args:
        path: a run folder.
        data: the data set, where it has moved.
        every: every n-th frame of a held-out camera; default: the run's setting.
    """
    run = load_run(path)
    scene = scene_of(run, data)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        before = evaluate(replace(run, path=Path(folder) / "run"), scene, every=every)
        for bits in BITS:
            file = Path(folder) / f"{bits}.safetensors"
            exported = export_compact(replace(run, scene=scene), file, bits, data=data)
            after = evaluate(load_run(file), scene, every=every)
            rows.append(
                {
                    "run": path.name,
                    "step": run.step,
                    "bits": bits,
                    "megabytes_float32": exported["bytes_float32"] / 1e6,
                    "megabytes": exported["bytes"] / 1e6,
                    "images": before["protocol"]["images"],
                    "psnr_before": before["psnr"],
                    "psnr_after": after["psnr"],
                    "loss": before["psnr"] - after["psnr"],
                    "ssim_loss": None if before["ssim"] is None else before["ssim"] - after["ssim"],
                    "psnr_to_run": exported["psnr_to_run"],
                }
            )
    return rows


def page(result: Result) -> str:
    """The result as Markdown."""
    columns = ("run", "step", "bits", "MB, float32", "MB", "images", "PSNR", "after", "lost, dB", "to the run, dB")
    cells = [
        [
            row["run"],
            row["step"],
            row["bits"],
            f"{row['megabytes_float32']:.1f}",
            f"{row['megabytes']:.1f}",
            row["images"],
            f"{row['psnr_before']:.3f}",
            f"{row['psnr_after']:.3f}",
            f"{row['loss']:.3f}",
            f"{row['psnr_to_run']:.1f}",
        ]
        for row in result["rows"]
    ]
    lines = [
        "# Compact models",
        "",
        *common.head("bench_export.py", result),
        "`msth export --to compact` at 16 and 8 bits a table value. PSNR is of the held-out images that `msth eval` "
        "compares, by the run and by the file; the last column compares renders of both, over "
        "the few views that an export looks at.",
        "",
        *common.markdown_table(columns, cells),
    ]
    return "\n".join(lines) + "\n"


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    moved = dict(parse_data(text) for text in options.data)
    if unknown := moved.keys() - {path.name for path in options.runs}:
        raise MsthError(f"--data {min(unknown)}: none of the runs has this name")
    rows = [row for path in options.runs for row in measure_run(path, moved.get(path.name), options.every)]
    return {"rows": rows}


def parse_data(text: str) -> tuple[str, Path]:
    """("basketball", Path("data/basketball")) of "basketball=data/basketball"."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise MsthError(f"--data {text}: expected NAME=PATH, NAME being that of a run folder")
    return name, Path(path)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", help="a data set that has moved")
    parser.add_argument("--every", type=int, help="every n-th frame is evaluated; default: the run's setting")
    common.main(NAME, measured, page, parser, cpu_sizes=True)

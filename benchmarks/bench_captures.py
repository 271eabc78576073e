"""Train captures with their presets, evaluate them, and keep a table of the results.

    python benchmarks/bench_captures.py --output runs --data basketball=PATH:multiview \\
        --data mutant=PATH:dnerf

Rows of data sets that are not named stay as they are. A data set whose run folder under --output is complete
is not trained again: its minutes and memory are those of the run that trained it.
"""

import argparse
import datetime
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from options import RESULTS, commit, parse_capture

from msth_taichi.errors import MsthError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.files import write_json, write_text
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.run import load_run
from msth_taichi.training.start import start_training

COLUMNS = (
    "data",
    "preset",
    "steps",
    "images",
    "PSNR",
    "SSIM",
    "minutes",
    "peak GPU GB",
    "model MB",
    "GPU",
    "date",
    "commit",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH:PRESET")
    parser.add_argument("--output", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of captures.md and captures.json")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--every", type=int, help="every n-th frame is evaluated; default: the preset's")
    parser.add_argument("--arch", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--commit", default=commit(), help="default: what git says")
    options = parser.parse_args()
    try:
        captures = [parse_capture(text) for text in options.data]
        for name, path, preset in captures:
            row = bench(path, preset, options.output / name, options)
            save(options.results, name, row)
            print(
                f"{name}: PSNR {row['psnr']:.2f}, SSIM {row['ssim']:.4f}, {row['minutes']:.1f} minutes",
                flush=True,
            )
    except MsthError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def bench(path: str, preset: str, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row: train (unless done already), evaluate, measure."""
    record = output / "bench.json"
    if not record.is_file():
        train_once(path, preset, output, options, record)
    run = load_run(output, arch=options.arch)
    result = evaluate(run, load_scene(path, run.config.data), every=options.every)
    keys = ("psnr", "psnr_pooled", "ssim", "ssim2", "ms_ssim", "d_ssim", "d_ssim2", "d_ms_ssim", "protocol")
    parameters = sum(p.numel() for p in run.model.parameters())
    return {
        **json.loads(record.read_text()),
        "steps": run.step,
        "model_megabytes": 4 * parameters / 1e6,
        **{key: result[key] for key in keys},
        "views": {name: {"psnr": view["psnr"], "ssim": view["ssim"]} for name, view in result["views"].items()},
    }


def train_once(path: str, preset: str, output: Path, options: argparse.Namespace, record: Path) -> None:
    """Train into `output`, and write what only the training process knows to `record`."""
    cuda = torch.cuda.is_available() and options.arch != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    run = start_training(path, output, preset=preset, settings=options.settings, arch=options.arch, overwrite=True)
    minutes = (time.monotonic() - start) / 60
    if run.step < run.config.training.steps:
        raise MsthError(f"{output}: stopped at step {run.step}; run the same command again to start over")
    values = {
        "preset": preset,
        "settings": options.settings,
        "minutes": minutes,
        "peak_gpu_gigabytes": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": options.commit,
    }
    write_json(record, values)


def save(folder: Path, name: str, row: dict[str, Any]) -> None:
    """Replace the row of `name` in captures.json, and write the table again."""
    path = folder / "captures.json"
    rows = json.loads(path.read_text()) if path.is_file() else {}
    rows[name] = row
    write_json(path, rows)
    write_text(folder / "captures.md", table(rows))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """All rows as Markdown, with the protocol of each below."""
    lines = [
        "# Captures",
        "",
        "Written by `python benchmarks/bench_captures.py`; see [README](../README.md).",
        "",
    ]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name, row in sorted(rows.items()):
        peak = row["peak_gpu_gigabytes"]
        cells = [
            name,
            " ".join([row["preset"], *row["settings"]]),
            row["steps"],
            row["protocol"]["images"],
            f"{row['psnr']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['minutes']:.1f}",
            "" if peak is None else f"{peak:.1f}",
            f"{row['model_megabytes']:.0f}",
            row["protocol"]["device"],
            row["date"],
            row["commit"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for name, row in sorted(rows.items()):
        protocol = row["protocol"]
        versions = protocol["versions"]
        views = ", ".join(f"{view} {value['psnr']:.2f}" for view, value in row["views"].items())
        lines += [
            "",
            f"**{name}**: {protocol['split']} views, every {protocol['every']}, "
            f"{protocol['resolution'][0]} x {protocol['resolution'][1]}, near {protocol['near']:g}, "
            f"background {protocol['background']}; PSNR by view: {views}. "
            f"torch {versions['torch']}, taichi {versions['taichi']}, Python {row['python']}.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""Train captures with their presets and several seeds, evaluate them, and keep a table of the results.

    python benchmarks/bench_captures.py --output runs --seeds 1,2,3 --data basketball=PATH:multiview \\
        --data mutant=PATH:dnerf
    python benchmarks/bench_captures.py --merge OTHER/captures.json   # rows that another GPU made

Rows of data sets and seeds that are not named stay as they are. A run folder under --output that is complete is not
trained again: its minutes and memory are those of the run that trained it.
"""

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from options import RESULTS, commit, parse_capture

from msth_taichi.errors import MsthError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.files import write_json, write_text
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.record import read_record
from msth_taichi.training.run import load_run
from msth_taichi.training.start import start_training

COLUMNS = (
    "data",
    "preset",
    "steps",
    "images",
    "seeds",
    "PSNR",
    "after affine fit",
    "worst view",
    "dynamic pixels",
    "SSIM",
    "mask IoU",
    "depth error",
    "minutes",
    "peak GPU GB",
    "model MB",
    "GPU",
    "date",
    "commit",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH:PRESET")
    parser.add_argument("--output", type=Path, help="folder for the run folders")
    parser.add_argument("--seeds", default="1", metavar="N,N,...", help="trainings of each data set")
    parser.add_argument("--merge", action="append", type=Path, default=[], help="take in rows of such a json file")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json")
    parser.add_argument("--name", default="captures", help="of the result files")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--every", type=int, help="every n-th frame is evaluated; default: the preset's")
    parser.add_argument("--arch", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--commit", default=commit(), help="default: what git says")
    options = parser.parse_args()
    if options.data and not options.output:
        parser.error("--data needs --output, a folder for the run folders")
    try:
        stem = options.results / options.name
        save(stem, {key: row for file in options.merge for key, row in json.loads(file.read_text()).items()})
        for seed in map(int, options.seeds.split(",")):
            for name, path, preset in map(parse_capture, options.data):
                row = bench(path, preset, seed, options.output / f"{name}-{seed}", options)
                save(stem, {f"{name}/{seed}": {"data": name, "seed": seed, **row}})
                shown = f"PSNR {row['psnr']:.2f}, SSIM {row['ssim']:.4f}, {row['minutes']:.1f} minutes"
                print(f"{name}, seed {seed}: {shown}", flush=True)
    except MsthError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def bench(path: str, preset: str, seed: int, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row: train (unless done already), evaluate, measure."""
    record = output / "bench.json"
    if not record.is_file():
        train_once(path, preset, seed, output, options, record)
    run = load_run(output, arch=options.arch)
    result = evaluate(run, load_scene(path, run.config.data), every=options.every)
    keys = ("psnr", "psnr_pooled", "ssim", "ssim2", "ms_ssim", "d_ssim", "d_ssim2", "d_ms_ssim", "protocol")
    found = ("psnr_affine", "psnr_dynamic", "depth_error")  # where the data allow
    parameters = sum(p.numel() for p in run.model.parameters())
    return {
        **json.loads(record.read_text()),
        "steps": run.step,
        "model_megabytes": 4 * parameters / 1e6,
        **{key: result[key] for key in keys},
        **{key: result.get(key) for key in found},
        "mask_iou": (result.get("mask") or {}).get("iou"),
        "views": {name: {"psnr": view["psnr"], "ssim": view["ssim"]} for name, view in result["views"].items()},
    }


def train_once(path: str, preset: str, seed: int, output: Path, options: argparse.Namespace, record: Path) -> None:
    """Train into `output`, and write what only the training process knows to `record`."""
    cuda = torch.cuda.is_available() and options.arch != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    settings = [*options.settings, f"training.seed={seed}"]
    run = start_training(path, output, preset=preset, settings=settings, arch=options.arch, overwrite=True)
    if run.step < run.config.training.steps:
        raise MsthError(f"{output}: stopped at step {run.step}; run the same command again to start over")
    noted = read_record(output)  # of the training alone, without the comparison after it
    values = {
        "preset": preset,
        "settings": options.settings,
        "minutes": (noted["seconds"]["start"] + noted["seconds"]["training"]) / 60,
        "peak_gpu_gigabytes": noted["peak_gpu_bytes"] / 1e9 if cuda else None,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": options.commit,
    }
    write_json(record, values)


def save(stem: Path, new: dict[str, dict[str, Any]]) -> None:
    """Replace rows of the json, and write the table again."""
    path = stem.with_suffix(".json")
    rows = (json.loads(path.read_text()) if path.is_file() else {}) | new
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rows)
    write_text(stem.with_suffix(".md"), table(list(rows.values())))


def table(rows: list[dict[str, Any]]) -> str:
    """A line per data set with means over seeds, and the protocol of each below."""
    lines = [
        "# Captures",
        "",
        "Written by `python benchmarks/bench_captures.py`; see [README](../README.md). Means over seeds, and in",
        "brackets the least and the most of them.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    by_name = {
        name: sorted((row for row in rows if row["data"] == name), key=lambda row: row["seed"])
        for name in sorted({row["data"] for row in rows})
    }
    for name, same in by_name.items():
        row = same[0]
        cells = [
            name,
            " ".join([row["preset"], *row["settings"]]),
            row["steps"],
            row["protocol"]["images"],
            len(same),
            spread([row["psnr"] for row in same], 2),
            spread([row["psnr_affine"] for row in same], 2),
            spread([min(view["psnr"] for view in row["views"].values()) for row in same], 2),
            spread([row["psnr_dynamic"] for row in same], 2),
            spread([row["ssim"] for row in same], 4),
            spread([row["mask_iou"] for row in same], 2),
            spread([row["depth_error"] for row in same], 3),
            spread([row["minutes"] for row in same], 1),
            spread([row["peak_gpu_gigabytes"] for row in same], 1),
            f"{row['model_megabytes']:.0f}",
            row["protocol"]["device"],
            max(row["date"] for row in same),
            ", ".join(sorted({row["commit"] for row in same})),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for name, same in by_name.items():
        protocol = same[0]["protocol"]
        versions = protocol["versions"]
        views = ", ".join(
            f"{view} {spread([row['views'][view]['psnr'] for row in same], 2)}" for view in same[0]["views"]
        )
        lines += [
            "",
            f"**{name}**: {protocol['split']} views, every {protocol['every']}, "
            f"{protocol['resolution'][0]} x {protocol['resolution'][1]}, near {protocol['near']:g}, "
            f"background {protocol['background']}; PSNR by view: {views}. "
            f"torch {versions['torch']}, taichi {versions['taichi']}, Python {same[0]['python']}.",
        ]
    return "\n".join(lines) + "\n"


def spread(values: list[float | None], digits: int) -> str:
    """Mean of seeds, with the least and the most where they differ; empty where a data set does not have it."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean, least, most = (f"{value:.{digits}f}" for value in (sum(known) / len(known), min(known), max(known)))
    return mean if least == most else f"{mean} ({least} to {most})"


if __name__ == "__main__":
    main()

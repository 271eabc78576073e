"""What each part of the method, and each setting that matters, is worth: one training per row, evaluated alike.

    python benchmarks/ablation.py --data basketball=PATH:multiview --data mutant=PATH:dnerf \\
        --data synthetic=synthetic:cameras=20,test_cameras=2,frames=60,width=640,height=480:multiview
    python benchmarks/ablation.py --small               # that synthetic capture a quarter as wide, on a CPU
    python benchmarks/ablation.py ... --only mask       # rows whose group is one of these
    python benchmarks/ablation.py ... --shard 0/2       # every second row; run the others on another GPU, --merge

Rows that are in the results already are kept, and rows that are asked for again replaced.
"""

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import torch
from options import arguments, parse_capture

from msth_taichi.config import load_preset
from msth_taichi.errors import ConfigError, MsthError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.files import write_json, write_text
from msth_taichi.kernels import runtime
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.bounds import with_bounds
from msth_taichi.training.trainer import Trainer, require_trainable

NAME = "ablation"

OBJECTIVE = "mask.objective=uncertainty"
VARIANTS: dict[str, dict[str, list[str]]] = {
    "preset": {"as it is": []},
    "mask": {
        "no mask: blend add": ["field.blend=add"],
        "blend mt": ["field.blend=mt"],
        "mask loss 0": ["loss.mask=0"],
        "mask loss 0.01": ["loss.mask=0.01"],
        "mask loss 0.1": ["loss.mask=0.1"],
        "mask loss 1": ["loss.mask=1"],
        "half the mask resolution": ["field.mask_resolution=HALF"],
        "twice the mask resolution": ["field.mask_resolution=TWICE"],
        "half of it at 8 times": ["field.mask_resolution=HALF", "field.mask_times=8"],
    },
    "objective": {
        "sparsity": ["mask.objective=sparsity"],
        "uncertainty, correlation": [OBJECTIVE],
        "uncertainty, correlation 1e-3": [OBJECTIVE, "mask.information_weight=1e-3"],
        "uncertainty, histogram": [OBJECTIVE, "mask.information=histogram", "mask.information_weight=0.01"],
        "uncertainty, neural": [OBJECTIVE, "mask.information=neural", "mask.information_weight=0.01"],
        "uncertainty, no information": [OBJECTIVE, "mask.information_weight=0"],
    },
    "tables": {
        "static / 4": ["field.log2_static=LESS"],
        "static x 4": ["field.log2_static=MORE"],
        "dynamic / 4": ["field.log2_dynamic=LESS"],
        "dynamic x 4": ["field.log2_dynamic=MORE"],
        "half the levels": ["field.levels=HALF"],
    },
    "time": {
        "all levels alike": ["field.base_resolution=[16,16,16,ALIKE]"],
        "half the resolution": ["field.max_resolution=[SPACE,SPACE,SPACE,HALF]"],
        "twice the resolution": ["field.max_resolution=[SPACE,SPACE,SPACE,TWICE]"],
    },
    "cameras": {
        "no colours": ["cameras.colors=none"],
        "affine colours": ["cameras.colors=affine"],
        "appearance of 8": ["cameras.appearance=8"],
        "poses refined": ["cameras.poses=refine"],
    },
    "regularisers": {
        "decay 0": ["loss.decay=0"],
        "decay 0.1": ["loss.decay=0.1"],
        "decay 0.3": ["loss.decay=0.3"],
        "decay 1": ["loss.decay=1"],
        "time smoothness 0.1": ["loss.time_smoothness=0.1"],
        "total variation 0.01": ["loss.total_variation=0.01"],
        "depth 1": ["loss.depth=1"],
        "distortion 0": ["loss.distortion=0"],
        "distortion 0.005": ["loss.distortion=0.005"],
        "sparse 1e-6": ["loss.sparse=1e-6"],
    },
    "opacity": {
        "opacity 0": ["loss.opacity=0"],
        "opacity 0.001": ["loss.opacity=0.001"],
        "opacity 0.01": ["loss.opacity=0.01"],
        "opacity 0.1": ["loss.opacity=0.1"],
    },
    "samplers": {
        "uniform": ["sampler.kind=uniform"],
        "static and dynamic": ["sampler.kind=static_dynamic", "sampler.variance=0.003"],
        "static and dynamic, 2 to 1": [
            "sampler.kind=static_dynamic",
            "sampler.variance=0.003",
            "sampler.ratio=2",
            "sampler.ratio_end=2",
        ],
        "importance, isg": ["sampler.kind=importance"],
        "importance, ist": ["sampler.kind=importance", "sampler.weight=ist"],
        "error map": ["sampler.kind=error_map"],
    },
    "optimisation": {
        "half the steps": ["training.steps=HALF"],
        "twice the steps": ["training.steps=TWICE"],
        "half the rate": ["training.learning_rate=HALF"],
        "twice the rate": ["training.learning_rate=TWICE"],
        "cosine": ["training.schedule=cosine"],
        "half the rays": ["training.rays_per_step=HALF"],
        "twice the rays": ["training.rays_per_step=TWICE"],
        "float32": ["training.precision=float32"],
    },
    "samples": {
        "half the samples": ["rays.samples=HALF"],
        "twice the samples": ["rays.samples=TWICE"],
        "half the proposal's": ["proposals.0.samples=HALF"],
        "twice the proposal's": ["proposals.0.samples=TWICE"],
        "proposal tables / 4": ["proposals.0.log2_static=LESS", "proposals.0.log2_dynamic=LESS"],
        "anneal 0": ["rays.anneal_steps=0"],
    },
}
"""Settings of each row, by group; HALF and TWICE are of the preset's value, LESS and MORE two below and above it.
Within a resolution they are of its time, of which ALIKE is that of the finest level and SPACE its resolution of space.
"""

SYNTHETIC = "synthetic=synthetic:cameras=20,test_cameras=2,frames=60,width=640,height=480:multiview"
SMALL = (
    "data.downscale=4",
    "field.levels=8",
    "field.max_resolution=[512,512,512,60]",
    "field.log2_static=15",
    "field.log2_dynamic=15",
    "field.mask_resolution=64",
    "proposals.0.levels=4",
    "proposals.0.log2_static=14",
    "proposals.0.log2_dynamic=14",
    "proposals.0.mask_resolution=32",
    "proposals.0.samples=32",
    "rays.samples=16",
    "rays.anneal_steps=150",
    "training.steps=1200",
    "training.rays_per_step=768",
    "training.learning_rate=2e-2",
    "training.learning_rate_end=1e-3",
    "training.threads=1",
    "evaluation.every=30",
)
"""A training of a rig's preset in one to two minutes of one core."""

METRICS = {
    "psnr": "PSNR",
    "psnr_affine": "after affine fit",
    "psnr_dynamic": "dynamic pixels",
    "psnr_worst": "worst view",
    "ssim": "SSIM",
    "psnr_train": "of training",
    "iou": "mask IoU",
    "depth_error": "depth error",
    "minutes": "minutes",
}


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        data: name, place and preset.
        group: of VARIANTS.
        variant: its name there.
        seed: of the training.
    """

    data: tuple[str, str, str]
    group: str
    variant: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.data[0]}/{self.group}/{self.variant}/{self.seed}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", action="append", metavar="NAME=PATH:PRESET")
    parser.add_argument("--only", action="append", metavar="GROUP", help=f"one of {', '.join(VARIANTS)}")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each row, with seeds 1, 2, ...")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="every N-th row from the I-th")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no row is begun")
    parser.add_argument("--shared", action="store_true", help="the device does other work as well: leave out minutes")
    parser.add_argument("--merge", action="append", type=Path, default=[], help="take in rows of such a json file")
    parser.add_argument("--name", default=NAME, help="of the result files")
    options = parser.parse_args()
    try:
        run(options)
    except MsthError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def run(options: argparse.Namespace) -> None:
    """Train what is asked for, and write the table after each row."""
    begun = time.monotonic()
    path = options.results / f"{options.name}{'_small' if options.small else ''}.json"
    rows: dict[str, Any] = {}
    for source in [path, *options.merge]:
        if source.is_file():
            rows |= json.loads(source.read_text())
    if options.shared:
        rows = {key: {**row, "minutes": None} for key, row in rows.items()}
    save(path, rows)
    if options.merge:
        return
    device = runtime.init(options.arch)
    small = list(SMALL) if options.small else []
    texts = options.data or ([SYNTHETIC] if options.small else [])
    captures = [parse_capture(text) for text in texts]
    shard, shards = (int(part) for part in options.shard.split("/"))
    share_frames()
    scenes: dict[tuple[str, str], Scene] = {}
    for number, job in enumerate(jobs(captures, options.only or list(VARIANTS), options.seeds)):
        if number % shards != shard:
            continue
        if time.monotonic() - begun > options.budget:
            break
        try:
            row = measure(job, [*small, *options.settings], scenes, device, options.commit)
        except ConfigError as error:  # such as a depth prior without depth maps
            print(job.key, "left out:", error, flush=True)
            continue
        rows[job.key] = {**row, "minutes": None} if options.shared else row
        save(path, rows)
        shown = {title: row[key] for key, title in METRICS.items() if row.get(key) is not None}
        print(job.key, " ".join(f"{title} {value:.4g}" for title, value in shown.items()), flush=True)


def jobs(captures: list[tuple[str, str, str]], groups: list[str], seeds: int) -> Iterator[Job]:
    """All rows, seed after seed."""
    for seed in range(1, seeds + 1):
        for capture in captures:
            for group in groups:
                if group not in VARIANTS:
                    raise MsthError(f"--only {group}: no such group; there are {', '.join(VARIANTS)}")
                yield from (Job(capture, group, variant, seed) for variant in VARIANTS[group])


def share_frames() -> None:
    """Let all trainings of one scene use the same decoded frames."""
    stores: dict[int, tuple[Any, FrameStore]] = {}
    decode = FrameStore.from_images

    def shared(images: Any, *others: Any, **options: Any) -> FrameStore:
        if id(images) not in stores:
            stores[id(images)] = (images, decode(images, *others, **options))
        return stores[id(images)][1]

    FrameStore.from_images = staticmethod(shared)  # type: ignore[method-assign]


def settings_of(preset: str, settings: list[str], given: list[str]) -> list[str]:
    """Settings with words such as HALF replaced by numbers."""
    values = load_preset(preset, given).model_dump()
    *space, finest = values["field"]["max_resolution"]
    found = []
    for setting in settings:
        key, _, value = setting.partition("=")
        number: Any = values
        for name in key.split("."):
            number = number[int(name) if name.isdigit() else name]
        number = finest if isinstance(number, list | tuple) else number
        words = {"SPACE": space[0], "ALIKE": finest}
        if isinstance(number, int):
            words |= {"HALF": number // 2, "TWICE": number * 2, "LESS": number - 2, "MORE": number + 2}
        elif isinstance(number, float):
            words |= {"HALF": number / 2, "TWICE": number * 2}
        for word, replacement in words.items():
            value = value.replace(word, str(replacement))
        found.append(f"{key}={value}")
    return found


def measure(
    job: Job, given: list[str], scenes: dict[tuple[str, str], Scene], device: torch.device, commit: str
) -> dict[str, Any]:
    """Train one variant and evaluate it."""
    name, place, preset = job.data
    settings = settings_of(preset, VARIANTS[job.group][job.variant], given)
    config = load_preset(preset, [*given, *settings, f"training.seed={job.seed}"])
    key = (place, config.data.model_dump_json())
    if key not in scenes:
        scenes[key] = load_scene(place, config.data)
    scene = scenes[key]
    require_trainable(scene, config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(scene, with_bounds(config, scene), Path(folder), device, progress=False)
        start, last = time.monotonic(), torch.zeros((), device=device)
        tail = min(200, config.training.steps)
        for step in range(config.training.steps):
            terms = trainer.step()
            if step >= config.training.steps - tail:
                last = last + terms["rgb"] / tail
        common.wait(device)
        minutes = (time.monotonic() - start) / 60
        run = trainer.as_run()
        result = evaluate(run, scene, progress=False)
    mask = result["mask"] or {}
    keys = ("psnr", "psnr_affine", "psnr_dynamic", "ssim", "depth_error")
    return {
        "data": name,
        "preset": preset,
        "group": job.group,
        "variant": job.variant,
        "seed": job.seed,
        "given": given,
        "settings": settings,
        **{key: result.get(key) for key in keys},
        "psnr_worst": min(view["psnr"] for view in result["views"].values()),
        "views": {view: value["psnr"] for view, value in result["views"].items()},
        "psnr_train": -10 * torch.log10(last).item(),
        "iou": mask.get("iou"),
        "minutes": minutes,
        "megabytes": 4 * sum(p.numel() for p in run.model.parameters()) / 1e6,
        "device": result["protocol"]["device"],
        "protocol": result["protocol"],
        "date": datetime.date.today().isoformat(),
        "commit": commit,
    }


def save(path: Path, rows: dict[str, Any]) -> None:
    """Rows as json, and their table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rows)
    write_text(path.with_suffix(".md"), page(rows))


def page(rows: dict[str, Any]) -> str:
    """One table per data set; seeds of a row are averaged."""
    lines = ["# Ablation", "", "Written by `python benchmarks/ablation.py`; see [README](../README.md)."]
    for data in sorted({row["data"] for row in rows.values()}):
        mine = [row for row in rows.values() if row["data"] == data]
        used = {key: title for key, title in METRICS.items() if any(row.get(key) is not None for row in mine)}
        first = mine[0]
        sizes = sorted({row["device"] for row in mine})
        lines += [
            "",
            f"## {data}",
            "",
            f"Preset {first['preset']}{' with ' if first['given'] else ''}{' '.join(first['given'])}; "
            f"{', '.join(sizes)}, {max(row['date'] for row in mine)}; "
            f"{first['protocol']['images']} held-out images, background {first['protocol']['background']}, near "
            f"{first['protocol']['near']:g}.",
            "",
            "| group | variant | seeds | " + " | ".join(used.values()) + " | commit |",
            "|" + "---|" * (4 + len(used)),
        ]
        order = [(group, variant) for group, variants in VARIANTS.items() for variant in variants]
        for group, variant in order:
            same = [row for row in mine if (row["group"], row["variant"]) == (group, variant)]
            if not same:
                continue
            cells = []
            for key in used:
                values = [row[key] for row in same if row.get(key) is not None]
                digits = 4 if key in ("ssim", "depth_error") else 2
                cells.append(f"{sum(values) / len(values):.{digits}f}" if values else "")
            commits = ", ".join(sorted({row["commit"] for row in same}))
            lines.append(f"| {group} | {variant} | {len(same)} | " + " | ".join([*cells, commits]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

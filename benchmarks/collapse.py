"""Whether training goes to an empty scene: captures before plain backdrops, with the presets for rigs.

    python benchmarks/collapse.py                       # the presets' full sizes; needs a GPU
    python benchmarks/collapse.py --small               # small pictures, tables and batches, on a CPU
    python benchmarks/collapse.py --only wispy-black-arc4:n3v --steps 300 --set training.learning_rate=3e-2

A row is a scene and a preset. It has collapsed where the field is empty, or no better on pixels of the object than the
backdrop alone would be: a field of one colour may be empty, or a wall before the cameras. Few cameras may also draw the
object on what lies behind it, each on its own piece: learned, but in the wrong place.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import common
import numpy as np
import torch
from backdrops import ARCS, BACKDROPS, CONTENTS, BackdropSource, backdrop_scene
from common import Result, Row
from options import arguments

from msth_taichi.config import Config, load_preset
from msth_taichi.errors import MsthError
from msth_taichi.model.renderer import RadianceField
from msth_taichi.scene.scene import Images, Scene
from msth_taichi.scene.statistics import temporal_variance
from msth_taichi.training.trainer import Trainer

NAME = "collapse"

LAYOUTS = {"n3v": "arc", "multiview": "dome", "immersive": "arc"}
"""Presets, and how the cameras of such captures stand."""

CAMERAS = (4, 16)

EMPTY = 0.05
"""Accumulation over the object's pixels, up to behind the object, below which the field shows nothing; a quarter of
the object's own opacity where that is less."""

GAIN = 0.2
"""dB over the backdrop alone, on the object's pixels, that a training must have learned."""

LOOKS = 8  # times that a training is looked at
PROBES = 4096  # pixels, half of them of the object
SEEN = 6 / 255  # a pixel is the object's where a colour is this far from the backdrop's


@dataclass(frozen=True)
class Sizes:
    """How large scenes and trainings are.

    Args:
        width: pixels.
        height: pixels.
        frames: times of each camera.
        steps: of a training.
        settings: overrides of the presets.
    """

    width: int
    height: int
    frames: int
    steps: int
    settings: tuple[str, ...] = ()


FULL = Sizes(width=320, height=240, frames=24, steps=600)
SMALL = Sizes(
    width=64,
    height=48,
    frames=12,
    steps=300,
    settings=(
        "training.threads=1",
        "training.rays_per_step=512",
        "rays.samples=32",
        "proposals.0.samples=64",
        "field.levels=8",
        "field.log2_static=14",
        "field.log2_dynamic=14",
        "field.mask_resolution=32",
        "field.max_resolution=[256,256,256,24]",
        "proposals.0.log2_static=13",
        "proposals.0.log2_dynamic=13",
        "proposals.0.mask_resolution=32",
        "proposals.0.max_resolution=[64,64,64,24]",
    ),
)


@dataclass(frozen=True)
class Probe:
    """Pixels of training images, the object's first.

    Args:
        image: (N,) rows of the images.
        row: (N,) pixel row.
        column: (N,) pixel column.
        target: (N, 3) colours in [0, 1].
        count: of the object's pixels.
    """

    image: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    target: torch.Tensor
    count: int


def names() -> list[str]:
    """SCENE:PRESET of every row; a scene is CONTENT-BACKDROP-LAYOUT and its number of cameras."""
    return [
        f"{content}-{backdrop}-{layout}{cameras}:{preset}"
        for preset, layout in LAYOUTS.items()
        for cameras in CAMERAS
        for content in CONTENTS
        for backdrop in BACKDROPS
    ]


def make_scene(name: str, config: Config, sizes: Sizes) -> Scene:
    """The scene of the first part of a row's name."""
    content, backdrop, rig = name.split("-")
    layout = rig.rstrip("0123456789")
    return backdrop_scene(
        content,
        backdrop,
        layout,
        int(rig.removeprefix(layout)),
        config.data,
        frames=sizes.frames,
        width=sizes.width,
        height=sizes.height,
    )


def bench(name: str, sizes: Sizes, device: torch.device, settings: Sequence[str] = ()) -> Row:
    """Train one row and look at it on the way; see `LOOKS`."""
    scene_name, _, preset = name.partition(":")
    # schedules keep the preset's length: what is watched is the beginning of a training, not a short one
    given = ["training.checkpoint_every=1000000000", *sizes.settings, *settings]
    config = load_preset(preset, given)
    scene = make_scene(scene_name, config, sizes)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(scene, config, Path(folder), device, progress=False)
        probe = make_probe(scene, config.training.seed)
        looks = []
        for step in range(sizes.steps):
            trainer.step()
            if (step + 1) * LOOKS // sizes.steps > step * LOOKS // sizes.steps:
                looks.append({"step": step + 1, **look(trainer, probe)})
    truth = opacity_of_object(scene, probe)
    alone = psnr(probe.target[: probe.count], torch.full((probe.count, 3), _source(scene.images("train")).backdrop))
    for found in looks:
        least = min(EMPTY, 0.25 * truth)
        found["empty"] = found["accumulation_seen"] < least
        found["behind"] = found["accumulation"] < least
        found["collapsed"] = bool(found["empty"] or not found["object_psnr"] > alone + GAIN)
    held_out, held_out_alone = held_out_psnr(trainer.model, scene)
    last = looks[-1]
    return {
        "scene": scene_name,
        "preset": preset,
        "steps": sizes.steps,
        "dynamic_pixels": dynamic_share(trainer),
        "opacity": truth,
        **{
            key: last[key]
            for key in ("accumulation", "accumulation_behind", "accumulation_whole", "object_psnr", "mask")
        },
        "object_psnr_of_backdrop": alone,
        "psnr": held_out,
        "psnr_of_backdrop": held_out_alone,
        "collapsed": last["collapsed"],
        "behind": last["behind"],
        "was_empty": any(found["empty"] for found in looks),
        "seconds": time.monotonic() - start,
        "looks": looks,
    }


def make_probe(scene: Scene, seed: int) -> Probe:
    """Pixels of the training images, half of them the object's."""
    images = scene.images("train")
    frames = np.stack(list(images.read()))
    backdrop = round(255 * _source(images).backdrop)
    seen = np.abs(frames.astype(int) - backdrop).max(-1) > 255 * SEEN
    random = np.random.default_rng(seed)
    parts = [np.stack(found.nonzero()) for found in (seen, ~seen)]
    picked = [part[:, random.choice(part.shape[1], min(PROBES // 2, part.shape[1]), replace=False)] for part in parts]
    image, row, column = np.concatenate(picked, 1)
    target = torch.from_numpy(frames[image, row, column]).float() / 255
    where = [torch.from_numpy(values) for values in (image, row, column)]
    return Probe(where[0], where[1], where[2], target, picked[0].shape[1])


@torch.no_grad()
def look(trainer: Trainer, probe: Probe) -> Row:
    """Means over the probe's pixels, rendered as in an evaluation but with the near plane of training."""
    model, device, images = trainer.model, trainer.device, trainer.images
    camera, times = images.camera[probe.image], images.time[probe.image]
    where = [values.to(device) for values in (camera, probe.row, probe.column, times)]
    rays = model.rays(trainer.scene.cameras.to(device), where[0], where[1], where[2], where[3])
    out = model(rays, background=model.background(len(probe.target)))
    color, accumulation = out.color.clamp(0, 1).cpu(), out.accumulation.cpu()
    # a backdrop may stand anywhere behind, as a wall
    middle, level = torch.from_numpy(trainer.scene.transform.apply_points(np.zeros(3))).float(), out.levels[-1]
    reach = 1.5 * (rays.origins.cpu() - middle).norm(dim=1)
    within = 0.5 * (level.t_edges[:, 1:] + level.t_edges[:, :-1]).cpu() < reach[:, None]
    here = (level.weights.cpu() * within).sum(1)
    return {
        "accumulation": here[: probe.count].mean().item(),
        "accumulation_behind": here[probe.count :].mean().item(),
        "accumulation_seen": accumulation[: probe.count].mean().item(),
        "accumulation_whole": accumulation.mean().item(),
        "object_psnr": psnr(color[: probe.count], probe.target[: probe.count]),
        "mask": torch.sigmoid(model.field.encoding.mask_logits).mean().item(),
        "mask_seen": out.mask[: probe.count].mean().item(),
    }


def opacity_of_object(scene: Scene, probe: Probe) -> float:
    """Mean exact opacity over the probe's pixels of the object."""
    images, count = scene.images("train"), probe.count
    image, row, column = (values[:count] for values in (probe.image, probe.row, probe.column))
    total = 0.0
    for k in image.unique().tolist():
        here = image == k
        total += float(_source(images).opacity(int(images.keys[k]))[row[here], column[here]].sum())
    return total / max(count, 1)


def held_out_psnr(model: RadianceField, scene: Scene, count: int = 3) -> tuple[float, float]:
    """PSNR of held-out views at `count` times, and of pictures of the backdrop alone."""
    images = scene.images("test")
    images = images.select(np.linspace(0, len(images) - 1, count).round().astype(int).tolist())
    errors = []
    for k, frame in enumerate(images.read()):
        target = torch.from_numpy(frame).float() / 255
        color = model.render_image(scene.cameras, int(images.camera[k]), float(images.time[k]))["rgb"].cpu()
        errors.append([(color - target).square().mean().item(), (target - _source(images).backdrop).square().mean()])
    rendered, alone = np.mean(errors, 0)
    return _decibel(float(rendered)), _decibel(float(alone))


def dynamic_share(trainer: Trainer) -> float:
    """Share of the training pixels whose colour varies enough for `sampler.kind = "static_dynamic"`."""
    _, variances = temporal_variance(trainer.store, trainer.images)
    threshold = trainer.config.sampler.variance
    return torch.cat([(variance > threshold).float().flatten() for variance in variances]).mean().item()


def psnr(color: torch.Tensor, target: torch.Tensor) -> float:
    """Of colours (N, 3)."""
    return _decibel((color - target).square().mean().item())


def _decibel(error: float) -> float:
    return -10 * math.log10(max(error, 1e-10)) if math.isfinite(error) else math.nan


def _source(images: Images) -> BackdropSource:
    assert isinstance(images.source, BackdropSource)
    return images.source


def selected(only: str) -> list[str]:
    """Names of the rows that `--only` asks for: all that contain one of its parts, or exact names of others."""
    parts = [part.strip() for part in only.split(",") if part.strip()]
    if not parts:
        return names()
    found = [name for name in names() if any(part in name for part in parts)]
    found += [part for part in parts if not any(part in name for name in names())]
    for name in found:
        scene, _, preset = name.partition(":")
        content, *rest = scene.split("-")
        known = content in CONTENTS and len(rest) == 2 and rest[0] in BACKDROPS
        if not (known and preset and rest[1].rstrip("0123456789") in ARCS and rest[1][-1].isdigit()):
            raise MsthError(f"--only {name}: expected part of a name such as {names()[0]}, or a name of that form")
    return found


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    sizes = SMALL if options.small else FULL
    if options.steps:
        sizes = replace(sizes, steps=options.steps)
    rows, started = [], time.monotonic()
    chosen = selected(options.only)
    for name in chosen:
        if options.budget and time.monotonic() - started > options.budget:
            print(f"stopped after {options.budget:.0f} s, with {len(rows)} of {len(chosen)} rows", flush=True)
            break
        row = bench(name, sizes, device, options.settings)
        rows.append(row)
        print(line(row), flush=True)
    return {
        "steps": sizes.steps,
        "settings": [*sizes.settings, *options.settings],
        "size": [sizes.width, sizes.height, sizes.frames],
        "rows": rows,
    }


def line(row: Row) -> str:
    """A row for who waits."""
    return (
        f"{row['scene']}:{row['preset']} accumulation {row['accumulation']:.3f} of {row['opacity']:.3f}, "
        f"object {row['object_psnr']:.2f} dB (backdrop {row['object_psnr_of_backdrop']:.2f}), "
        f"held out {row['psnr']:.2f} dB ({row['psnr_of_backdrop']:.2f}), mask {row['mask']:.2f}: "
        f"{state(row)}; {row['seconds']:.0f} s"
    )


def state(row: Row) -> str:
    """What became of a training."""
    if row["collapsed"]:
        return "COLLAPSED"
    if row["behind"]:
        return "drawn behind"
    return "recovered" if row["was_empty"] else "sound"


COLUMNS = (
    "scene",
    "preset",
    "moving pixels",
    "opacity",
    "accumulation",
    "beside it",
    "object dB",
    "backdrop's",
    "held-out dB",
    "backdrop's",
    "mask",
    "state",
)


def page(result: Result) -> str:
    """The result as Markdown."""
    keys = ("scene", "preset", "dynamic_pixels", "opacity", "accumulation", "accumulation_behind")
    cells = [
        [
            *(row[key] for key in keys),
            *(f"{row[key]:.2f}" for key in ("object_psnr", "object_psnr_of_backdrop", "psnr", "psnr_of_backdrop")),
            row["mask"],
            state(row),
        ]
        for row in result["rows"]
    ]
    width, height, frames = result["size"]
    collapsed = sum(row["collapsed"] for row in result["rows"])
    lines = [
        "# Collapse",
        "",
        *common.head("collapse.py", result),
        f"{collapsed} of {len(cells)} trainings collapsed. The first {result['steps']} steps of each preset"
        + (f" with {' '.join(result['settings'])}" if result["settings"] else "")
        + f", on pictures of {width}x{height} at {frames} times. A scene's name says what moves, before which "
        "backdrop, and how many cameras see it from where. Opacity is the object's own, exactly; accumulation is the "
        "field's up to behind the object, on pixels of the object and beside it. PSNR is over the object's training "
        "pixels and over held-out pictures, each with that of the backdrop alone. A training that is not "
        f"{GAIN} dB better than the backdrop on the object's pixels, or is empty there, has collapsed; one that was "
        "empty on the way and is not now has recovered. Drawn behind: the pixels are right, from surfaces that lie "
        "behind the object.",
        "",
        *common.markdown_table(COLUMNS, cells),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains one of these parts, with commas between")
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="no further row is started after this")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    common.main(NAME, measured, page, parser)

"""A long video as a chain of segments against one model of each segment's frames: quality, seams, time and memory.

    python benchmarks/bench_segments.py                # 1,200 frames in 4 segments; needs a GPU
    python benchmarks/bench_segments.py --seeds 1,2,3  # the same with several seeds, whose means the table has
    python benchmarks/bench_segments.py --small        # 24 frames in 3 segments, on a CPU too

The content is the built-in scene, traced on the device. Every model is trained for the same number of steps, but the
first of the chain for half as many again: all others build upon it. Frames are those of a held-out camera. Results of
seeds that are not named stay as they are.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import common
import numpy as np
import torch
from bench_training_step import frames_traced_in_place
from common import Result, Row, wait
from options import arguments

from msth_taichi.config import Config, load_preset
from msth_taichi.errors import MsthError
from msth_taichi.kernels import runtime
from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.chain import Chain
from msth_taichi.training.long import train_segments
from msth_taichi.training.run import Run, run_image
from msth_taichi.training.segments import Cut, Segment, cut_frames, frame_times, part_of
from msth_taichi.training.trainer import train

NAME = "segments"


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: of all trainings.
        scene: built-in scene.
        segment: frames of each segment.
        steps: of each training.
        every: every n-th frame of a segment is compared with the truth; all are rendered.
        settings: overrides of the preset.
    """

    preset: str
    scene: str
    segment: int
    steps: int
    every: int = 1
    settings: tuple[str, ...] = ()


FULL = Sizes(
    "multiview",
    "synthetic:cameras=20,test_cameras=1,frames=1200,width=640,height=480",
    segment=300,
    steps=3000,
    every=10,
)
SMALL = Sizes("demo", "synthetic:cameras=4,test_cameras=1,frames=24,width=32,height=24", segment=8, steps=60)


def measure_seed(device: torch.device, sizes: Sizes, seed: int) -> Result:
    """Train the chain and the models that it is compared with; look at frames of each and at those of seams."""
    config = load_preset(sizes.preset, [*sizes.settings, f"training.steps={sizes.steps}", f"training.seed={seed}"])
    scene = load_scene(sizes.scene, config.data)
    cut = cut_frames(frame_times(scene), sizes.segment)
    costs: list[Row] = []

    def train_one(scene: Scene, config: Config, path: Path, **options) -> Run:
        """`train`, and what it costs."""
        before = start_memory(device)
        start = time.perf_counter()
        run = train(scene, config, path, overwrite=True, progress=False, **options)
        wait(device)
        costs.append({"train_seconds": time.perf_counter() - start, "peak_bytes": peak_memory(device, before)})
        return run

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, frames_traced_in_place():
        # kernels are compiled by a chain that does not count: those of a later segment are not all of the first one's
        short = config.model_copy(update={"training": config.training.model_copy(update={"steps": 32})})
        train_segments(scene, short, Path(folder) / "short", Cut(cut.segments[-2:]), train_one)
        costs.clear()
        chain = train_segments(scene, config, Path(folder) / "chain", cut, train_one)
        for number, segment in enumerate(own_frames(cut.segments)):
            numbers = range(segment.first, segment.first + segment.frames)
            own = part_of(scene, segment)
            single = train_one(own, config, Path(folder) / "single")
            in_chain, alone = costs[number], costs[-1]
            times = [
                segment.start + (n - segment.first) * (segment.end - segment.start) / segment.frames for n in numbers
            ]
            truth = [f for k, f in enumerate(frames_of(own)) if k % sizes.every == 0]
            found, chain_seconds = render(chain, scene.cameras, times, device, sizes.every)
            own_times = [segment.local(t) for t in times]
            other, alone_seconds = render(single, scene.cameras, own_times, device, sizes.every)
            rows.append(
                {
                    "first": segment.first,
                    "frames": segment.frames,
                    "psnr_chain": psnr(found, truth),
                    "psnr_single": psnr(other, truth),
                    **{f"chain_{key}": value for key, value in in_chain.items()},
                    **{f"single_{key}": value for key, value in alone.items()},
                    "chain_render_seconds": chain_seconds,
                    "single_render_seconds": alone_seconds,
                }
            )
        seams = measure_seams(chain, scene, device)
        first_steps = chain.segment(0).step
    return {
        "preset": sizes.preset,
        "settings": list(sizes.settings),
        "scene": sizes.scene,
        "steps": sizes.steps,
        "first_steps": first_steps,
        "frames": scene.num_frames,
        "overlap": cut.segments[0].frames - cut.segments[1].first,
        "rows": rows,
        "seams": seams,
    }


def own_frames(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Segments without the frames that they share with the next one."""
    for segment, after in pairwise(segments):
        yield replace(segment, frames=after.first - segment.first, end=after.start)
    yield segments[-1]


def measure_seams(chain: Chain, scene: Scene, device: torch.device) -> Row:
    """PSNR of one frame to the next, where segments overlap, in the middle of segments, and where nothing is blended;
    of the truth as well, whose content moves by different amounts."""
    segments = chain.cut.segments
    overlap = segments[0].first + segments[0].frames - segments[1].first
    half = overlap // 2 + 1
    at_seam = [range(s.first - 1, s.first + overlap + 1) for s in segments[1:]]
    inside = [range(s.first + s.frames // 2 - half, s.first + s.frames // 2 + half) for s in segments]
    times = frame_times(scene)
    images = scene.images("test")

    def steps(windows: Sequence[range], of: str) -> list[float]:
        found = []
        for window in windows:
            numbers = [n for n in window if 0 <= n < len(times)]
            if of == "truth":
                frames = list(frames_of(scene, images, numbers))
            else:
                frames = render(chain, scene.cameras, [float(times[n]) for n in numbers], device)[0]
            found += [psnr([a], [b]) for a, b in pairwise(frames)]
        return found

    def cuts() -> list[float]:
        """From the last frame of a segment's own to the first of the next one, by the one and by the other's field."""
        found = []
        camera = int(images.camera[0])
        for k, after in enumerate(segments[1:]):
            before = segments[k].local(float(times[after.first - 1]))
            a = run_image(chain.segment(k), scene.cameras, camera, before)["rgb"]
            b = run_image(chain.segment(k + 1), scene.cameras, camera, 0.0)["rgb"]
            found.append(psnr([a.cpu()], [b.cpu()]))
        return found

    rows = {
        f"{name}_{of}": steps(windows, of)
        for name, windows in (("seam", at_seam), ("inside", inside))
        for of in ("chain", "truth")
    }
    rows["cut_chain"] = cuts()
    return {name: {"mean": float(np.mean(values)), "least": min(values)} for name, values in rows.items()}


def frames_of(scene: Scene, images=None, numbers: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
    """True frames (H, W, 3) in [0, 1] of the first held-out camera, in the order of time."""
    images = scene.images("test") if images is None else images
    rows = (images.camera == images.camera[0]).nonzero()[:, 0]
    rows = rows if numbers is None else rows[list(numbers)]
    return (torch.from_numpy(frame).float() / 255 for frame in images.select(rows).read())


def render(
    run: Run, cameras: Cameras, times: Sequence[float], device: torch.device, every: int = 1
) -> tuple[list[torch.Tensor], float]:
    """Every n-th frame (H, W, 3) of the held-out camera at times, and the seconds that each of all took, after one
    that warms up."""
    camera = int(run.scene.images("test").camera[0])
    view = partial(run.renderer.image, cameras, camera)
    view(times[0])
    wait(device)
    start = time.perf_counter()
    found = [view(t)["rgb"] for t in times][::every]
    wait(device)
    return [image.cpu() for image in found], (time.perf_counter() - start) / len(times)


def psnr(found: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    """Mean over images, dB."""
    errors = [(a - b).square().mean().clamp(min=1e-10) for a, b in zip(found, truth, strict=True)]
    return float(torch.stack([-10 * torch.log10(error) for error in errors]).mean())


def start_memory(device: torch.device) -> int:
    """Bytes of GPU memory in use; the peak is counted from here."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_memory(device: torch.device, before: int) -> int:
    """Bytes of GPU memory that a training took; on a CPU the most that the process ever had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() - before
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mean_rows(seeds: Sequence[Result]) -> list[Row]:
    """One row for each segment: means over seeds, of the gain its least and most as well."""
    found = []
    for rows in zip(*(result["rows"] for result in seeds), strict=True):
        gains = [row["psnr_chain"] - row["psnr_single"] for row in rows]
        means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        found.append({**means, "least_gain": min(gains), "most_gain": max(gains)})
    return found


def page(result: Result) -> str:
    """The result as Markdown."""
    seeds = list(result["seeds"].values())
    first = seeds[0]
    cells = []
    for row in mean_rows(seeds):
        gained = f"{row['psnr_chain'] - row['psnr_single']:+.2f}"
        spread = f" ({row['least_gain']:+.2f} to {row['most_gain']:+.2f})" if len(seeds) > 1 else ""
        cells.append(
            [
                f"{row['first']:.0f} to {row['first'] + row['frames'] - 1:.0f}",
                f"{row['psnr_chain']:.2f}",
                f"{row['psnr_single']:.2f}",
                gained + spread,
                *(
                    1e3 * row[f"{kind}_{what}"] / (row["frames"] if what == "train_seconds" else 1)
                    for what in ("train_seconds", "render_seconds")
                    for kind in ("chain", "single")
                ),
                *(row[f"{kind}_peak_bytes"] / 1e6 for kind in ("chain", "single")),
            ]
        )
    columns = [
        "frames",
        "dB, chain",
        "dB, one model",
        "gained",
        "training ms a frame, chain",
        "one model",
        "render ms, chain",
        "one model",
        "peak MB, chain",
        "one model",
    ]
    made = [f"{seed} (commit {one['stamp']['commit']})" for seed, one in result["seeds"].items()]
    seams = {
        name: {
            "mean": sum(one["seams"][name]["mean"] for one in seeds) / len(seeds),
            "least": min(one["seams"][name]["least"] for one in seeds),
        }
        for name in first["seams"]
    }
    names = {
        "seam_chain": "where segments overlap",
        "inside_chain": "in the middle of segments",
        "cut_chain": "from one segment to the next, were nothing blended",
        "seam_truth": "the truth, where segments overlap",
        "inside_truth": "the truth, in the middle of segments",
    }
    lines = [
        "# Segments of a long video",
        "",
        *common.head("bench_segments.py", result),
        f"Preset {' '.join([first['preset'], *first['settings']])}, scene `{first['scene']}`, {first['steps']} steps a "
        f"model, {first['first_steps']} for the first of the chain; segments share {first['overlap']} frames with "
        f"the next one. Means of seeds "
        f"{', '.join(made)}, of the gain the least and the most as well. Each row compares the chain with "
        "one model of the same frames, trained from scratch. On a CPU the peak is that of the process so far.",
        "",
        *common.markdown_table(columns, cells),
        "",
        "## From frame to frame",
        "",
        "PSNR of one rendered frame to the next, of a camera that stands still: lower is more change.",
        "",
        *common.markdown_table(
            ["where", "mean dB", "least dB"],
            [[name, f"{seams[key]['mean']:.2f}", f"{seams[key]['least']:.2f}"] for key, name in names.items()],
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", default="1", metavar="N,N,...", help="trainings of each model")
    options = parser.parse_args()
    try:
        device = runtime.init(options.arch)
        if device.type == "cpu" and not options.small:
            raise MsthError("full sizes need a GPU: add --small")
        run(device, options)
    except MsthError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def run(device: torch.device, options: argparse.Namespace) -> None:
    """Measure seed after seed, and write the table after each."""
    name = NAME + ("_small" if options.small else "")
    path = options.results / f"{name}.json"
    seeds = json.loads(path.read_text())["seeds"] if path.is_file() else {}
    for seed in map(int, options.seeds.split(",")):
        stamp = common.stamp(device, options.commit)
        found = {"stamp": stamp, **measure_seed(device, SMALL if options.small else FULL, seed)}
        seeds = dict(sorted((seeds | {str(seed): found}).items()))
        result = {"stamp": stamp, "seeds": seeds}
        common.save(options.results, name, result, page(result))
        print(page(result), flush=True)


if __name__ == "__main__":
    main()

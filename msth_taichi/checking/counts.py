"""How many of what: cameras, frames, sizes, frame rates, times; and files that hold less than they should."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msth_taichi.checking.findings import Finding, listing
from msth_taichi.checking.samples import View
from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.damage import MOST_DAMAGED, damage_lines
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.scene.sources import FileInfo, VideoSource, probe_video

BLACK = 3.0
"""Mean brightness, of 255, below which a camera shows nothing."""

_RATE = 0.005  # relative: 29.97 and 30 frames per second drift by a frame in 33 seconds
_GAP = 5.0  # times the median step between times


@dataclass(frozen=True)
class Video:
    """One camera's file: what it holds, and how many of its frames the scene uses."""

    camera: str
    path: Path
    info: FileInfo
    needed: int


def load_for_check(data: str, config: DataConfig) -> tuple[Scene, list[Finding]]:
    """The scene, with as many frames as all of its videos have, and a finding for each video that is too short.

    Raises:
        DataError: nothing can be looked at.
    """
    try:
        return load_scene(data, config), []
    except DataError as error:
        reason = error
    try:
        # videos that end too soon still show where they are, and that the rest is in order
        videos = videos_of(load_scene(data, config.model_copy(update={"num_frames": 1})))
        left = [video.info.frames - video.needed + 1 for video in videos]
        scene = load_scene(data, config.model_copy(update={"num_frames": min(left)}))
    except (DataError, ValueError):
        raise reason from None
    usual = max(Counter(left).most_common(), key=lambda pair: (pair[1], pair[0]))[0]
    short = [(video, count) for video, count in zip(videos, left, strict=True) if count < usual]
    if not short:
        return scene, [
            Finding("counts", "error", "the videos are shorter than stated", str(reason), "lower num_frames")
        ]
    return scene, [
        Finding(
            "counts",
            "error",
            f"{video.camera} ends early",
            f"{video.path}: {count} frames can be decoded, most videos have {usual}; the checks below use the first "
            f"{min(left)} frames",
            f"restore the video, or train with --set data.num_frames={count}",
            (video.camera,),
        )
        for video, count in short
    ]


def videos_of(scene: Scene) -> list[Video]:
    """The scene's videos; none where it comes from images."""
    videos = {}
    for images in scene.splits.values():
        source = images.source
        if not isinstance(source, VideoSource):
            continue
        file, frame = np.divmod(images.keys, source.num_frames)
        for k in np.unique(file).tolist():
            rows = np.flatnonzero(file == k)
            name = scene.cameras.names[int(images.camera[rows[0]])]
            videos[k] = (name, source.files[k], int(frame[rows].max()) + 1)
    with ThreadPoolExecutor() as pool:
        infos = list(pool.map(probe_video, (path for _, path, _ in videos.values())))
    return [Video(name, path, info, need) for (name, path, need), info in zip(videos.values(), infos, strict=True)]


def count_findings(scene: Scene, videos: Sequence[Video], views: Sequence[View]) -> list[Finding]:
    """Cameras, frames, sizes, rates, and files that fail."""
    sizes = Counter(scene.cameras.size(i) for i in range(len(scene.cameras)))
    splits = ", ".join(f"{name} {len(images):,} images" for name, images in scene.splits.items())
    pixels = ", ".join(f"{count} of {width} x {height}" for (width, height), count in sizes.most_common(4))
    moving = "standing still" if scene.static_cameras else "one an image"
    title = f"{scene.format}: {len(scene.cameras)} cameras {moving}, {scene.num_frames} times"
    findings = [Finding("counts", "ok", title, f"{splits}; pixels: {pixels}")]
    if "test" not in scene.splits:
        remedy = "list a few cameras in transforms_test.json to be able to tell how good a training is"
        findings.append(Finding("counts", "warning", "no view is held out", "the data set has no test split", remedy))
    if len(scene.images("train")) == len(scene.cameras) == 1:
        remedy = "add images: one picture does not show depth"
        findings.append(Finding("counts", "error", "a single image", "train has 1 image", remedy))
    for view in views:
        name = scene.cameras.names[view.camera]
        if view.failure:
            findings.append(
                Finding(
                    "counts", "error", f"{name} cannot be decoded", view.failure, "encode or download it again", (name,)
                )
            )
        elif len(view.grey) and view.grey.mean() < BLACK:
            measured = f"mean brightness {view.grey.mean():.1f} of 255"
            findings.append(Finding("counts", "warning", f"{name} is black", measured, "leave it out", (name,)))
    return [*findings, *_damage(scene, views), *_rates(scene, videos)]


def _damage(scene: Scene, views: Sequence[View]) -> list[Finding]:
    """Frames that training would leave out, of those that were looked at."""
    damaged = [view for view in views if view.damaged]
    if not damaged:
        return []
    count = sum(len(view.damaged) for view in damaged)
    looked_at = sum(len(view.grey) or len(view.damaged) for view in views)
    few = count <= MOST_DAMAGED * looked_at
    then = "goes on without them" if few else "does not begin with so many"
    return [
        Finding(
            "counts",
            "warning" if few else "error",
            f"{count} of the {looked_at} frames looked at cannot be decoded",
            "; ".join(line.split(";")[0] for line in damage_lines(e for view in damaged for e in view.damaged)),
            f"restore the files or encode them again; training {then}",
            tuple(scene.cameras.names[view.camera] for view in damaged),
        )
    ]


def _rates(scene: Scene, videos: Sequence[Video]) -> list[Finding]:
    rates = np.array([video.info.fps for video in videos])
    if not (rates > 0).any():
        return []
    usual = float(np.median(rates[rates > 0]))
    odd = [video for video in videos if video.info.fps > 0 and abs(video.info.fps / usual - 1) > _RATE]
    findings = [
        Finding(
            "counts",
            "error",
            f"{video.camera} has another frame rate",
            f"{video.path}: {video.info.fps:g} frames per second, most videos have {usual:g}",
            f"bring it to {usual:g} with scripts/resize_videos.py",
            (video.camera,),
        )
        for video in odd
    ]
    if abs(scene.fps / usual - 1) > _RATE:
        measured = f"the data set says {scene.fps:g} frames per second, its videos {usual:g}"
        remedy = "correct fps; it decides how fast renders play"
        findings.append(Finding("counts", "warning", "frame rates disagree", measured, remedy))
    if not findings:
        findings.append(Finding("counts", "ok", "one frame rate", f"{len(videos)} videos, {usual:g} frames per second"))
    return findings


def time_findings(scene: Scene) -> list[Finding]:
    """The range of times, and gaps in it."""
    splits = {name: np.unique(images.time.numpy()) for name, images in scene.splits.items()}
    times = np.unique(np.concatenate(list(splits.values())))
    seconds = f", {len(times) / scene.fps:.1f} s at {scene.fps:g} per second" if scene.static_cameras else ""
    measured = f"{len(times)} times from {times[0]:.3f} to {times[-1]:.3f}{seconds}"
    if len(times) < 2:
        return [Finding("time", "ok", "one time", f"{measured}: the scene is static")]
    findings = []
    steps = np.diff(times)
    if steps.max() > _GAP * np.median(steps) and len(times) > 4:
        at = int(steps.argmax())
        findings.append(
            Finding(
                "time",
                "warning",
                "a gap in time",
                f"nothing between {times[at]:.3f} and {times[at + 1]:.3f}, where the usual step is "
                f"{np.median(steps):.4f}",
                "add the images that are missing, or scale the times of the others to close it",
            )
        )
    if times[-1] - times[0] < 0.5:
        remedy = "scale all times so that they span 0 to 1: the grid's resolution in time is spent on all of it"
        findings.append(Finding("time", "warning", "times span little of 0 to 1", measured, remedy))
    train = splits.get("train", times)
    outside = [
        name for name, own in splits.items() if own[0] < train[0] - steps.max() or own[-1] > train[-1] + steps.max()
    ]
    if outside:
        remedy = "hold out times between those of training: what lies beyond cannot be learned"
        measured_outside = f"{listing(outside)} reaches beyond the {train[0]:.3f} to {train[-1]:.3f} of train"
        findings.append(Finding("time", "warning", "times outside training", measured_outside, remedy))
    return findings or [Finding("time", "ok", "times cover the range", measured)]

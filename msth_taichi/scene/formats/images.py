"""Images with a pose each, and a time each unless nothing moves, such as the frames of one moving camera."""

from collections.abc import Sequence
from pathlib import Path

from msth_taichi.config import DataConfig
from msth_taichi.scene.assemble import View, image_scene
from msth_taichi.scene.formats.transforms import (
    first_file_path,
    frames_per_second,
    has_transforms,
    read_bounds,
    read_table,
)
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.sources import IMAGE_SUFFIXES, probe_image

HOLD_OUT = 8
"""Where nothing says who tests, every 8th image in order of time does, the middle of its group."""


def detects(folder: Path) -> bool:
    """Whether the entries are image files."""
    return has_transforms(folder) and first_file_path(folder).lower().endswith(IMAGE_SUFFIXES)


def load(folder: Path, config: DataConfig) -> Scene:
    """Images with transforms_{train,test[,val]}.json, or one transforms.json.

    Images of one pose are of one camera if all are of cameras that stand still.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    return load_images(folder, config, format="images", suffix="")


def load_images(folder: Path, config: DataConfig, format: str, suffix: str) -> Scene:
    """`load` for `file_path` entries that want `suffix` after them."""
    table = read_table(folder)
    entries = table.entries
    files = [entry.file(suffix) for entry in entries]
    # without any time all images show one moment; with some, the others' is missing
    moves = any("time" in entry.values for entry in entries)
    times = [entry.time() if moves else 0.0 for entry in entries]
    infos = [probe_image(file) for file in files]
    views = [
        entry.view(Path(entry.path).as_posix(), file, info)
        for entry, file, info in zip(entries, files, infos, strict=True)
    ]
    masks = [entry.mask(info) for entry, info in zip(entries, infos, strict=True)]
    order = sorted(range(len(entries)), key=lambda row: (times[row], entries[row].path))
    views, camera = still_views(views) if moves else (views, range(len(views)))
    return image_scene(
        folder,
        config,
        format=format,
        views=views,
        files=files,
        camera=camera,
        times=times,
        splits=table.splits or hold_out(order),
        fps=frames_per_second(entries[0], 30.0),
        masks=masks,
        depths=[entry.depth() for entry in entries],
        bounds=read_bounds(entries[0]),
    )


def still_views(views: Sequence[View]) -> tuple[Sequence[View], Sequence[int]]:
    """Each distinct view once, and which of them an image has, if all cameras stand still; else as they are.

    A camera stands still if it took two images or more; its name is that of its first.
    """
    rows: dict[tuple, int] = {}
    owner = []
    for view in views:
        key = (view.pose.tobytes(), *view.intrinsics, *view.distortion, view.lens, view.width, view.height)
        owner.append(rows.setdefault(key, len(rows)))
    if len(owner) < 2 * len(rows) or min(map(owner.count, set(owner))) < 2:
        return views, range(len(views))
    return [views[owner.index(row)] for row in range(len(rows))], owner


def hold_out(order: Sequence[int]) -> dict[str, list[int]]:
    """Splits of rows in order of time; a lone one trains."""
    test = order[min(HOLD_OUT // 2, len(order) - 1) :: HOLD_OUT] if len(order) > 1 else []
    return {"train": sorted(set(order).difference(test)), "test": sorted(test)}

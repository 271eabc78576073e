"""Images with a pose and a time each, such as the frames of one moving camera.

Letters: K images.
"""

from pathlib import Path

import numpy as np

from msth_taichi.config import DataConfig
from msth_taichi.scene.formats.transforms import (
    SINGLE,
    build_cameras,
    common_size,
    first_file_path,
    frames_per_second,
    has_transforms,
    read_splits,
)
from msth_taichi.scene.scene import Scene, make_images
from msth_taichi.scene.sources import IMAGE_SUFFIXES, ImageSource, probe_image

HOLD_OUT = 8
"""Of one transforms.json, every 8th image in order of time is held out, the middle of its group."""


def detects(folder: Path) -> bool:
    """Whether the entries are image files."""
    return has_transforms(folder) and first_file_path(folder).lower().endswith(IMAGE_SUFFIXES)


def load(folder: Path, config: DataConfig) -> Scene:
    """Images with transforms_{train,test[,val]}.json, or one transforms.json; each image is its own camera.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    return load_images(folder, config, format="images", suffix="")


def load_images(folder: Path, config: DataConfig, format: str, suffix: str) -> Scene:
    """`load` for `file_path` entries that want `suffix` after them."""
    splits = read_splits(folder)
    entries = [entry for split in splits.values() for entry in split]
    files = [entry.file(suffix) for entry in entries]
    times = np.array([entry.time() for entry in entries])
    infos = [probe_image(file) for file in files]
    width, height = common_size(entries, infos, files)
    names = [Path(entry.values["file_path"]).as_posix() for entry in entries]
    cameras, transform = build_cameras(entries, names, width, height, config)

    rows = np.split(np.arange(len(entries)), np.cumsum([len(split) for split in splits.values()])[:-1])
    members = dict(zip(splits, rows, strict=True))
    if SINGLE in members:
        members = _hold_out(times)
    distinct, frame = np.unique(times, return_inverse=True)
    channels = max(info.channels for info in infos)
    source = ImageSource(tuple(files), ((width, height),) * len(files), channels, config.downscale)
    return Scene(
        name=folder.resolve().name,
        path=folder,
        cameras=cameras,
        splits={name: make_images(k, times[k], frame[k], k, source) for name, k in members.items() if len(k)},
        transform=transform,
        box=config.box,
        num_frames=len(distinct),
        fps=frames_per_second(entries[0], 30.0),
        format=format,
        static_cameras=False,
    )


def _hold_out(times: np.ndarray) -> dict[str, np.ndarray]:
    order = np.argsort(times, kind="stable")
    test = order[min(HOLD_OUT // 2, len(order) - 1) :: HOLD_OUT] if len(order) > 1 else order[:0]
    return {"train": np.setdiff1d(order, test), "test": np.sort(test)}

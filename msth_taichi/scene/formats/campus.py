"""The Campus data set of MSTH's authors: `<scene>_<camera>.mp4` with `transforms_<split>.json`.

Letters: C cameras.
"""

import re
from pathlib import Path

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.assemble import video_scene
from msth_taichi.scene.formats.calibration import probe_videos
from msth_taichi.scene.formats.transforms import Entry, first_entry, frames_per_second, read_table
from msth_taichi.scene.scene import Scene

# cam_01.mp4 is a camera's name, not a scene's: any rig of one's own may have it
_NAME = re.compile(r"(?!(?:cam|camera|video|view)_\d+\.)[^/\\]+_\d+\.mp4", re.IGNORECASE)


def detects(folder: Path) -> bool:
    """Whether the json of the training cameras names videos by scene and camera."""
    if not (folder / "transforms_train.json").is_file():
        return False
    try:
        return bool(_NAME.fullmatch(first_entry(folder).path))
    except DataError:
        return False


def load(folder: Path, config: DataConfig) -> Scene:
    """Videos of cameras that stand still, one an entry; frames are counted if the json does not say how many.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    table = read_table(folder)
    files = [entry.file() for entry in table.entries]
    videos = probe_videos(files, config, _stated_frames(table.entries))
    return video_scene(
        folder,
        config,
        format="campus",
        views=[
            entry.view(file.stem, file, info)
            for entry, file, info in zip(table.entries, files, videos.infos, strict=True)
        ],
        files=files,
        splits=table.splits,
        num_frames=videos.num_frames,
        fps=frames_per_second(table.entries[0], videos.fps),
    )


def _stated_frames(entries: list[Entry]) -> int | None:
    stated = {entry.number("num_frames") for entry in entries if "num_frames" in entry.values}
    if not stated:
        return None
    if len(stated) > 1 or min(stated) < 1 or min(stated) % 1:
        values = ", ".join(f"{value:g}" for value in sorted(stated))
        raise DataError(
            f"{entries[0].json}: num_frames is {values}; write one whole number of at least 1 in every json, or none"
        )
    return int(stated.pop())

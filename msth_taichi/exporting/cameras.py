"""A run's cameras for other programs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from msth_taichi.exporting.outputs import require_output
from msth_taichi.files import write_json
from msth_taichi.scene.scene import Images, Scene
from msth_taichi.scene.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from msth_taichi.scene.write import camera_entry
from msth_taichi.training.run import Run


def export_cameras(run: Run, output: Path, *, overwrite: bool = False) -> Path:
    """Write a run's cameras as nerfstudio's transforms.json, in the user's coordinates.

    An entry for each camera that stands still, whose `file_path` is videos/NAME.mp4, or for each image of cameras that
    move, with its time, images/NAME.png. The files themselves are not written; where they are put there,
    `load_scene` reads the folder. Training cameras stand where they were found to, if `cameras.poses` is "refine".

    Args:
        run: a trained run; its data set is not needed.
        output: ends in .json.
        overwrite: replace a file.
    Returns:
        `output`.
    Raises:
        RunError: a path that cannot be written.

    Example:
        >>> export_cameras(run, Path("transforms.json"))
        PosixPath('transforms.json')
    """
    require_output(output, ".json", overwrite)
    scene = replace(run.scene, cameras=run.model.refined(run.scene.cameras).to("cpu"))
    tables = {split: _entries(scene, images) for split, images in scene.splits.items()}
    top: dict[str, Any] = {"fps": scene.fps}
    if scene.bounds:
        top["bounds"] = [distance / scene.transform.scale for distance in scene.bounds]
    if scene.static_cameras:
        top["num_frames"] = scene.num_frames
    lists = {f"{split}_filenames": [entry["file_path"] for entry in table] for split, table in tables.items()}
    write_json(output, {**top, **lists, "frames": [entry for table in tables.values() for entry in table]})
    return output


def _entries(scene: Scene, images: Images) -> list[dict[str, Any]]:
    names = scene.cameras.names
    if scene.static_cameras:
        rows = images.camera.unique().tolist()
        files = ({"file_path": _file("videos", names[row], ".mp4"), "camera": names[row]} for row in rows)
    else:
        rows = images.camera.tolist()
        times = zip(rows, images.time.tolist(), strict=True)
        files = ({"file_path": _file("images", names[row], ".png"), "time": time} for row, time in times)
    return [{**file, **camera_entry(scene, row)} for file, row in zip(files, rows, strict=True)]


def _file(folder: str, name: str, suffix: str) -> str:
    """Names of cameras that are those of their files keep no second suffix."""
    path = Path(folder) / name.lstrip("/")
    known = path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    return (path.with_suffix(suffix) if known else path.with_name(path.name + suffix)).as_posix()

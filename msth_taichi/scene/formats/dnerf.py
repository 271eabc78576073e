"""D-NeRF's json: `camera_angle_x`, and images with a pose and a time whose `file_path` leaves out .png."""

from pathlib import Path

from msth_taichi.config import DataConfig
from msth_taichi.scene.formats.images import load_images
from msth_taichi.scene.formats.transforms import first_entry, has_transforms
from msth_taichi.scene.scene import Scene


def detects(folder: Path) -> bool:
    """Whether the entries leave out the suffix and have a time."""
    if not has_transforms(folder):
        return False
    entry = first_entry(folder)
    return not Path(entry.path).suffix and "time" in entry.values


def load(folder: Path, config: DataConfig) -> Scene:
    """Images with transforms_{train,test[,val]}.json; RGBA stays RGBA.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    return load_images(folder, config, format="dnerf", suffix=".png")

"""DyCheck's iPhone captures: a hand-held camera to train on, and one or two that stand still to test on."""

from pathlib import Path

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.formats.calibration import positive
from msth_taichi.scene.formats.nerfies import DATASET, is_nerfies, nerfies_scene, read_ids, read_object
from msth_taichi.scene.scene import Scene

EXTRA, SPLITS, DEPTHS = "extra.json", "splits", "depth"
FPS = 30.0


def detects(folder: Path) -> bool:
    """Whether a folder of Nerfies' kind has splits/train.json, or extra.json and no splits at all.

    DyCheck puts an extra.json into HyperNeRF's folders as well, with splits of other names beside it.
    """
    splits = folder / SPLITS
    extra = (folder / EXTRA).is_file() and not splits.is_dir()
    return is_nerfies(folder) and (extra or (splits / "train.json").is_file())


def load(folder: Path, config: DataConfig) -> Scene:
    """Images named by splits/train.json and splits/val.json, or where those are not there by dataset.json.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    ids = read_ids(folder / DATASET, "ids")
    if (folder / SPLITS).is_dir():
        train, test = (read_ids(folder / SPLITS / f"{split}.json", "frame_names", ids) for split in ("train", "val"))
    else:
        train, test = (read_ids(folder / DATASET, key, ids) for key in ("train_ids", "val_ids"))
    if not train:
        raise DataError(f"{folder / DATASET}: no image to train on; restore 'train_ids' or {SPLITS}/train.json")
    fps = FPS
    if (folder / EXTRA).exists():
        fps = positive(read_object(folder / EXTRA).get("fps", FPS), f"{folder / EXTRA}: fps")
    splits = {"train": train, "test": test}
    return nerfies_scene(folder, config, format="dycheck", ids=ids, splits=splits, fps=fps, depths=DEPTHS)

"""HyperNeRF's and Nerfies' captures: validation rigs of two cameras, and single cameras to interpolate."""

from collections.abc import Sequence
from pathlib import Path

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.formats import dycheck
from msth_taichi.scene.formats.nerfies import DATASET, is_nerfies, nerfies_scene, read_ids
from msth_taichi.scene.scene import Scene

INTERVAL = 4
"""Without `val_ids`, every 4th image trains and the image half way between two of them tests."""

FPS = 15.0
"""Of the published captures; no file states it."""


def detects(folder: Path) -> bool:
    """Whether there are dataset.json and camera/, and DyCheck's files are not."""
    return is_nerfies(folder) and not dycheck.detects(folder)


def load(folder: Path, config: DataConfig) -> Scene:
    """Images named by dataset.json: `train_ids` train and `val_ids` test.

    Raises:
        DataError: names the file, what is wrong with it, and the remedy.
    """
    path = folder / DATASET
    ids = read_ids(path, "ids")
    test = read_ids(path, "val_ids", ids)
    splits = {"train": read_ids(path, "train_ids", ids), "test": test} if test else interpolation(ids)
    if not splits["train"]:
        raise DataError(f"{path}: no image to train on; restore 'ids' and 'train_ids'")
    return nerfies_scene(folder, config, format="hypernerf", ids=ids, splits=splits, fps=FPS)


def interpolation(ids: Sequence[str]) -> dict[str, list[str]]:
    """Splits of a sequence: the images between those that train are as far from them as can be.

    Source: HyperNeRF (Park et al. 2021), `InterpDataSource` with an interval of 4.
    """
    if len(ids) <= INTERVAL:
        return {"train": list(ids), "test": []}
    train = list(ids[::INTERVAL])
    return {"train": train, "test": list(ids[INTERVAL // 2 :: INTERVAL])[: len(train) - 1]}

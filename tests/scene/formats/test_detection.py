"""Each folder is of one format, whatever other programs have left in it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from msth_taichi.scene.formats import FORMATS
from tests.scene.formats import nerfies, test_colmap, test_nerfstudio
from tests.scene.rig import room_rig, room_sweep

NAMES = [f"{k:06d}" for k in range(9)]


def hypernerf(folder: Path) -> None:
    nerfies.write_nerfies(folder, room_sweep(9), NAMES, range(5), range(5, 9))


def dycheck(folder: Path) -> None:
    hypernerf(folder)
    nerfies.write(folder / "extra.json", {"fps": 30})


def images(folder: Path) -> None:
    test_nerfstudio.write_images(folder, room_sweep(9))


def multiview(folder: Path) -> None:
    test_nerfstudio.write_videos(folder, room_rig())


def colmap(folder: Path) -> None:
    test_colmap.sequence(folder, room_sweep(9))


def first_of(folder: Path) -> str:
    return next(module.__name__ for module in FORMATS if module.detects(folder)).rpartition(".")[2]


@pytest.mark.parametrize("write", [hypernerf, dycheck, images, multiview, colmap])
def test_one_format(tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path)
    found = [module.__name__.rpartition(".")[2] for module in FORMATS if module.detects(tmp_path)]
    assert found == [write.__name__]


@pytest.mark.parametrize("write", [hypernerf, dycheck, images, multiview])
def test_a_model_of_colmap_beside_another_calibration(tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path)
    test_colmap.sequence(tmp_path / "other", room_sweep(9))
    shutil.move(tmp_path / "other/sparse", tmp_path / "colmap")
    assert first_of(tmp_path) == write.__name__


def test_an_empty_folder_and_a_file(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert not any(module.detects(tmp_path) for module in FORMATS)

"""A small folder of every format, of what the built-in scene's cameras see."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.scene import data_sets
from tests.scene.formats import (
    nerfies,
    test_campus,
    test_colmap,
    test_dycheck,
    test_dynamic3dgs,
    test_immersive,
    test_n3v,
    test_nerf_synthetic,
    test_nerfstudio,
    test_technicolor,
)
from tests.scene.rig import Rig, room_rig, room_sweep

WIDTH, HEIGHT = 16, 12


@cache
def rig() -> Rig:
    """Four cameras that stand still, as Campus has a file for each split."""
    return room_rig(cameras=4, frames=2, width=WIDTH, height=HEIGHT)


@cache
def sweep() -> Rig:
    return room_sweep(count=test_colmap.COUNT, width=WIDTH, height=HEIGHT)


def hypernerf(folder: Path) -> Path:
    names = [f"{k:06d}" for k in range(6)]
    return nerfies.write_nerfies(folder, sweep(), names, train=range(0, 6, 2), val=range(1, 6, 2), scales=(1,))


CAPTURES: dict[str, Callable[[Path], object]] = {
    "n3v": lambda folder: test_n3v.write(rig(), folder),
    "immersive": lambda folder: test_immersive.write(test_immersive.through_fisheyes(rig()), folder),
    "campus": lambda folder: test_campus.write(rig(), folder),
    "technicolor": lambda folder: test_technicolor.write(rig(), folder),
    "dynamic3dgs": lambda folder: test_dynamic3dgs.write(rig(), folder),
    "dnerf": data_sets.dnerf,
    "nerf_synthetic": lambda folder: test_nerf_synthetic.write(sweep(), folder),
    "hypernerf": hypernerf,
    "dycheck": lambda folder: test_dycheck.write_dycheck(sweep(), folder),
    "images": lambda folder: test_nerfstudio.write_images(folder, sweep()),
    "multiview": lambda folder: test_nerfstudio.write_videos(folder, rig()),
    "colmap": lambda folder: test_colmap.sequence(folder, sweep()),
}
"""Names of formats, and what writes one into a folder that exists."""

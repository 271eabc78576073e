"""Each released rig is recognised by its own format alone, and `load_scene` takes it as it is."""

from pathlib import Path

import pytest

from msth_taichi.scene.formats import FORMATS
from msth_taichi.scene.scene import load_scene
from tests.scene.formats import test_campus, test_dynamic3dgs, test_immersive, test_n3v, test_technicolor
from tests.scene.rig import AS_IS, room_rig

WRITERS = {
    "campus": test_campus.write,
    "dynamic3dgs": test_dynamic3dgs.write,
    "immersive": test_immersive.write,
    "n3v": test_n3v.write,
    "technicolor": test_technicolor.write,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    rig = room_rig(cameras=4, frames=2)
    return {name: write(rig, tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_first_to_recognise_it(folders, name):
    takers = [format.__name__.rpartition(".")[2] for format in FORMATS if format.detects(folders[name])]
    # Campus is a kind of multi-view video with a json of its own, and comes first
    assert takers == ([name, "multiview"] if name == "campus" else [name])


@pytest.mark.parametrize("name", WRITERS)
def test_loads_with_any_setting(folders, name):
    scene = load_scene(folders[name])
    assert scene.format == name and scene.static_cameras
    half = load_scene(folders[name], AS_IS.model_copy(update={"downscale": 2, "num_frames": 1}))
    assert half.cameras.size(0) == (16, 12) and half.num_frames == 1
    assert next(half.images("test").read()).shape == (12, 16, 3)

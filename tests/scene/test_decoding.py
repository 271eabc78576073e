import threading

import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.scene.decoding import decode
from msth_taichi.scene.scene import load_scene
from tests.scene import data_sets


@pytest.mark.parametrize("make", [data_sets.multiview, data_sets.dnerf])
def test_every_frame_comes_once_with_its_row(tmp_path, make):
    images = load_scene(make(tmp_path)).images("train")
    found = {}
    decode(images, lambda row, frame: found.setdefault(row, frame.copy()), "frames", progress=False)
    assert sorted(found) == list(range(len(images)))
    assert all(np.array_equal(found[row], frame) for row, frame in enumerate(images.read()))


def test_kernels_of_the_built_in_scene_run_in_the_main_thread():
    images = load_scene("synthetic:cameras=3,test_cameras=1,frames=2,width=16,height=12").images("train")
    threads = set()
    decode(images, lambda row, frame: threads.add(threading.current_thread()), "frames", progress=False)
    assert threads == {threading.main_thread()}


def test_a_damaged_file_is_named(tmp_path):
    scene = load_scene(data_sets.multiview(tmp_path))
    images = scene.images("train")
    images.source.files[1].write_bytes(b"no video")
    with pytest.raises(DataError, match=images.source.files[1].name):
        decode(images, lambda row, frame: None, "frames", progress=False)


def test_an_error_in_use_ends_it(tmp_path):
    images = load_scene(data_sets.multiview(tmp_path)).images("train")

    def fail(row, frame):
        raise KeyError(row)

    with pytest.raises(KeyError):
        decode(images, fail, "frames", progress=False)

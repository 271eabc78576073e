import numpy as np
import pytest
import torch

from msth_taichi.errors import DataError
from msth_taichi.scene import frames as frames_module
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import load_scene
from tests.scene import data_sets


def test_gather_and_image_return_the_decoded_pixels(tmp_path, device):
    scene = load_scene(data_sets.dnerf(tmp_path))
    images = scene.images("train")
    store = FrameStore.from_images(images, scene.cameras, device, 1.0, progress=False)
    expected = np.stack(list(images.read()))
    assert store.frames.shape == (4, 12, 16, 4) and store.frames.dtype == torch.uint8
    assert store.frames.device.type == device.type
    index = np.random.default_rng(0).integers(0, [4, 12, 16], (50, 3)).T
    colors = store.gather(*(torch.from_numpy(i).to(device) for i in index))
    assert colors.dtype == torch.float32 and colors.device.type == device.type
    assert np.allclose(colors.cpu(), expected[tuple(index)] / 255, atol=1e-7)
    assert np.allclose(store.image(2).cpu(), expected[2] / 255, atol=1e-7)
    empty = torch.zeros(0, dtype=torch.int64, device=device)
    assert store.gather(empty, empty, empty).shape == (0, 4)


@pytest.mark.gpu
def test_frames_beyond_gpu_memory_stay_in_ram_and_gather_the_same(tmp_path):
    scene = load_scene(data_sets.dnerf(tmp_path))
    images, cuda = scene.images("train"), torch.device("cuda")
    near = FrameStore.from_images(images, scene.cameras, cuda, 1.0, progress=False)
    far = FrameStore.from_images(images, scene.cameras, cuda, 1e-9, progress=False)
    assert near.frames.is_cuda and not far.frames.is_cuda
    index = [torch.randint(n, (50,), device=cuda) for n in (4, 12, 16)]
    assert torch.equal(near.gather(*index), far.gather(*index))


def test_memory_is_estimated_before_it_is_taken(tmp_path, monkeypatch):
    scene = load_scene(data_sets.dnerf(tmp_path))
    images = scene.images("train")
    assert FrameStore.estimate(images, scene.cameras) == 4 * 12 * 16 * 4
    monkeypatch.setattr(frames_module, "_free_memory", lambda: 3000.0)
    with pytest.raises(DataError, match=r"4 frames need .* data\.downscale"):
        FrameStore.from_images(images, scene.cameras, torch.device("cpu"), 1.0, progress=False)

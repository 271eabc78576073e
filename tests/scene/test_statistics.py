import numpy as np
import torch

from msth_taichi.config import DataConfig
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import make_images
from msth_taichi.scene.statistics import temporal_variance
from msth_taichi.scene.synthetic import synthetic_scene


def table(camera: list[int]):
    count = len(camera)
    return make_images(camera, np.zeros(count), np.zeros(count), np.arange(count), None)


def test_population_variance_of_each_camera(device):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (23, 3, 4, 4), generator=generator, dtype=torch.uint8).to(device)
    # interleaved, unequal, and longer than a block
    camera = [5, 2, 5] + [2, 2] * 6 + [5] * 8
    cameras, variance = temporal_variance(FrameStore.of(frames, device), table(camera))
    assert cameras.tolist() == [2, 5] and [v.shape for v in variance] == [(3, 4)] * 2
    for u, c in enumerate(cameras.tolist()):
        colors = frames[torch.tensor(camera) == c][..., :3].double() / 255
        expected = colors.var(0, correction=0).mean(-1)
        assert torch.allclose(variance[u].double(), expected, atol=1e-7)


def test_what_does_not_change_has_variance_0(device):
    frames = torch.full((9, 2, 2, 3), 255, dtype=torch.uint8, device=device)
    frames[4, 0, 1] = 0
    _, variance = temporal_variance(FrameStore.of(frames, device), table([0] * 9))
    assert (variance[0] > 0).tolist() == [[False, True], [False, False]]


def test_dynamic_pixels_of_the_built_in_scene_are_where_things_move():
    scene = synthetic_scene(cameras=2, test_cameras=1, frames=6, width=48, height=36)
    images = scene.images("train")
    store = FrameStore.from_images(images, scene.cameras, torch.device("cpu"), DataConfig(), progress=False)
    cameras, variance = temporal_variance(store, images)
    for u in cameras.tolist():
        moving = np.stack([images.moving(k) for k in range(6 * u, 6 * u + 6)])
        dynamic = variance[u].numpy() > 0.01
        assert dynamic.any()
        # colours are averaged over a pixel, motion is known at its centre: edges may differ
        assert (dynamic & ~moving.any(0)).sum() < 0.1 * dynamic.sum()

"""Small tables of images for samplers: cameras of two sizes, rows interleaved and not in order of time."""

from typing import Any

import numpy as np
import torch

from msth_taichi.scene.cameras import Cameras, make_cameras
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Images, make_images

SIZES = [[7, 5], [4, 6]]
"""Width and height of the pictures of cameras 0 and 1."""

CAMERA = [1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 0]
TIMES = 8
FRAME = [3, 0, 4, 0, 1, 7, 5, 2, 6, 3, 1, 7]


class Source:
    """Frames that are nowhere but in their store."""

    def __init__(self, channels: int = 3, masked: bool = False, version: int = 0):
        self.channels, self.masked, self.version = channels, masked, version

    def fingerprint(self) -> list[Any]:
        return [self.version]


def images(source: Any = None) -> Images:
    frame = np.asarray(FRAME)
    return make_images(CAMERA, frame / TIMES, frame, range(len(CAMERA)), source)


def cameras() -> Cameras:
    pose = torch.eye(4)[:3].repeat(2, 1, 1)
    return make_cameras(pose, [[5, 5, 3, 2.5]] * 2, torch.zeros(2, 8), [0] * 2, SIZES, list("ab"))


def store(device: torch.device, channels: int = 3, seed: int = 0) -> FrameStore:
    """Few colours, so that a pixel has some of them at several times; a mask in the last of four channels."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(SIZES)[CAMERA]
    pixels = torch.randint(0, 6, (int(sizes.prod(1).sum()), channels), generator=generator, dtype=torch.uint8) * 40
    if channels == 4:
        pixels[:, 3] = torch.where(torch.rand(len(pixels), generator=generator) < 0.7, 255, 0)
    return FrameStore(pixels.to(device), sizes, device)


def ordered(camera: int) -> list[int]:
    """Rows of a camera in order of time."""
    return sorted((k for k, c in enumerate(CAMERA) if c == camera), key=lambda k: FRAME[k])


def assert_drawn_by(chance: torch.Tensor, counts: torch.Tensor) -> None:
    """Counts are multinomial of these chances: nothing that has none, and chi-square within five deviations."""
    chance, counts = chance.double().cpu().flatten(), counts.double().cpu().flatten()
    assert (counts[chance == 0] == 0).all()
    expected = (chance / chance.sum() * counts.sum())[chance > 0]
    assert expected.min() > 5, "too few draws to tell"
    squares = ((counts[chance > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert abs(squares - freedom) < 5 * (2 * freedom) ** 0.5, (squares, freedom)

"""Weights read strip by strip, against the publication's formulas for all frames at once."""

import pytest
import torch

from msth_taichi.sampling.weights import UNIT, isg_weights, ist_weights
from msth_taichi.scene import statistics
from msth_taichi.scene.frames import FrameStore
from tests.sampling import tables

GAMMA, FLOOR = 0.1, 0.15


def frames(store: FrameStore, camera: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, H, W, 3) colours and (T, H, W) whether pixels count."""
    values = torch.stack([store.image(k) for k in tables.ordered(camera)]).double().cpu()
    return values[..., :3], values[..., 3] > 0 if values.shape[-1] == 4 else torch.ones(values.shape[:3]) > 0


def expected_isg(store: FrameStore, camera: int) -> torch.Tensor:
    colors, kept = frames(store, camera)
    median = colors.masked_fill(~kept[..., None], torch.nan).nanmedian(dim=0).values
    square = (colors - median) ** 2
    return torch.where(kept, (square / (square + GAMMA**2)).mean(-1), 0)


def expected_ist(store: FrameStore, camera: int, shift: int) -> torch.Tensor:
    colors, kept = frames(store, camera)
    largest = torch.zeros_like(colors)
    for t in range(len(colors)):
        for s in range(max(t - shift, 0), min(t + shift + 1, len(colors))):
            both = (kept[t] & kept[s])[..., None]
            largest[t] = torch.maximum(largest[t], (colors[t] - colors[s]).abs() * both)
    return torch.where(kept, largest.mean(-1).clamp(min=FLOOR), 0)


def gathered(strips, camera: int) -> torch.Tensor:
    """(T, H, W) weights of the camera's frames in order of time; every pixel comes once."""
    (width, height), rows = tables.SIZES[camera], tables.ordered(camera)
    found = torch.full((len(rows), height, width), -1, dtype=torch.int64)
    for k, first, weights in strips:
        part = found[rows.index(k), first : first + len(weights)]
        assert (part == -1).all() and weights.dtype == torch.int32
        part.copy_(weights)
    assert (found >= 0).all() and found.max() <= UNIT
    return found.double()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("camera", [0, 1])
def test_difference_to_the_median(device, channels, camera):
    store = tables.store(device, channels)
    rows = torch.tensor(tables.ordered(camera))
    found = gathered(isg_weights(store, rows, 1, GAMMA, 31, channels == 4), camera)
    assert torch.allclose(found / UNIT, expected_isg(store, camera), atol=1e-4)
    assert found.max() > 0.5 * UNIT and (found == 0).any()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("camera", [0, 1])
@pytest.mark.parametrize("shift", [1, 2, 25])
def test_difference_to_nearby_times(device, channels, camera, shift):
    store = tables.store(device, channels)
    rows = torch.tensor(tables.ordered(camera))
    found = gathered(ist_weights(store, rows, 1, shift, FLOOR, channels == 4), camera)
    assert torch.allclose(found / UNIT, expected_ist(store, camera, shift), atol=1e-4)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_strips_change_nothing(device, channels, multiple, monkeypatch):
    store, rows = tables.store(device, channels), torch.tensor(tables.ordered(0))

    def both() -> list[torch.Tensor]:
        isg = isg_weights(store, rows, multiple, GAMMA, 31, channels == 4)
        ist = ist_weights(store, rows, multiple, 2, FLOOR, channels == 4)
        return [gathered(isg, 0), gathered(ist, 0)]

    whole = both()
    monkeypatch.setattr(statistics, "WORKING_BYTES", 1)
    assert list(statistics.strips(5, 100, multiple)) == [(y, min(y + multiple, 5)) for y in range(0, 5, multiple)]
    assert all(torch.equal(a, b) for a, b in zip(both(), whole, strict=True))


def test_what_is_held_does_not_grow_with_the_video(monkeypatch):
    """Frames that a reader of one strip may keep: as many as it looks at together."""
    asked = []
    store = tables.store(torch.device("cpu"))
    rows = torch.tensor(tables.ordered(0) * 40)
    read = store.raw
    monkeypatch.setattr(store, "raw", lambda k: asked.append(k) or read(k))
    for _ in isg_weights(store, rows, 1, GAMMA, 9, False):
        pass
    assert len(asked) == 9 + len(rows), "nine for the median, then each frame once"
    asked.clear()
    for _ in ist_weights(store, rows, 1, 3, FLOOR, False):
        pass
    assert len(asked) == 1 + 3 + len(rows), "each frame once, besides the ends"

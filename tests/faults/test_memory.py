"""A GPU that is out of memory: smaller parts, one line, the same picture."""

import pytest
import torch

from msth_taichi.errors import DeviceError
from msth_taichi.model import parts
from msth_taichi.model.parts import FEWEST, in_parts
from msth_taichi.model.renderer import RadianceField, render_image
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.occupancy import Occupancy
from msth_taichi.rendering.still import StillView


@pytest.fixture(autouse=True)
def enough(monkeypatch):
    monkeypatch.setattr(parts, "_fits", 2**62)


def with_memory_for(most: int, sizes: list[int]):
    def use(part: torch.Tensor) -> int:
        sizes.append(len(part))
        if len(part) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(part)

    return use


def test_parts_are_halved_until_they_fit_and_stay_so(capsys):
    sizes: list[int] = []
    assert sum(in_parts(torch.arange(20_000), 16_000, with_memory_for(5000, sizes))) == 20_000
    assert sizes == [10_000, 5000, 5000, 5000, 5000]
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1 and "out of memory; it renders 5000 rays at once from here on" in told
    assert in_parts(torch.arange(6000), 16_000, with_memory_for(5000, sizes)) == [3000, 3000]
    assert not capsys.readouterr().err


def test_there_is_an_end_to_it():
    sizes: list[int] = []
    with pytest.raises(DeviceError, match=f"out of memory for as few as {FEWEST} rays; end other programs"):
        in_parts(torch.arange(8000), 4096, with_memory_for(100, sizes))
    assert sizes == [4000, 2000, 1024]


@pytest.mark.parametrize("kind", ["slow", "fast", "still"])
def test_a_picture_is_the_same(make_model, tiny_scene, monkeypatch, kind, capsys):
    monkeypatch.setattr(parts, "FEWEST", 50)
    model = make_model()
    cameras = tiny_scene.cameras

    def picture() -> torch.Tensor:
        if kind == "slow":
            return render_image(model, cameras, 0, 0.4)["rgb"]
        renderer = FastRenderer(model)
        if kind == "fast":
            return renderer.image(cameras, 0, 0.4)["rgb"]
        return StillView(renderer, cameras, 0).image(0.4)["rgb"]

    whole = picture()
    inner, sizes = RadianceField.background, []

    def background(self, count, *arguments, **options):
        sizes.append(count)
        if count > 120:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, count, *arguments, **options)

    monkeypatch.setattr(RadianceField, "background", background)
    assert torch.allclose(picture(), whole, atol=1e-5)
    assert max(sizes) == 24 * 18 and min(sizes) <= 108 and capsys.readouterr().err.count("warning: ") == 1


def test_cells_are_found_in_smaller_parts(make_model, monkeypatch, capsys):
    monkeypatch.setattr(parts, "FEWEST", 50)
    model = make_model()
    proposal = model.proposals[-1]

    def occupied() -> torch.Tensor:
        return Occupancy(proposal, torch.float32, 8, least=1e-2).occupied(0)

    whole = occupied()
    inner = type(proposal).at

    def at(self, positions, *arguments, **options):
        if len(positions) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, positions, *arguments, **options)

    monkeypatch.setattr(type(proposal), "at", at)
    assert torch.equal(occupied(), whole) and capsys.readouterr().err.count("warning: ") == 1

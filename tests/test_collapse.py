"""The presets learn what moves before a plain backdrop, where all pixels at first ask for one colour."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def collapse(monkeypatch) -> Any:
    """The benchmark, at sizes of seconds."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("collapse")
    monkeypatch.setattr(module, "LOOKS", 1)
    monkeypatch.setattr(module, "PROBES", 512)
    return module


@pytest.mark.parametrize(
    "name",
    ["wispy-black-arc4:n3v", "dense-black-arc4:n3v", "wispy-black-dome4:multiview", "dense-white-arc4:immersive"],
)
def test_a_plain_backdrop_is_not_all_that_is_learned(collapse, device, name):
    small = collapse.SMALL
    sizes = replace(
        small,
        width=40,
        height=30,
        frames=6,
        steps=160,
        settings=(*small.settings, "training.rays_per_step=256", "rays.samples=16", "proposals.0.samples=32"),
    )
    row = collapse.bench(name, sizes, device)
    assert row["accumulation"] > collapse.EMPTY
    assert row["object_psnr"] > row["object_psnr_of_backdrop"] + 3, row

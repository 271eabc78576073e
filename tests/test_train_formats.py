"""`msth train` and `msth eval` run from a folder of every format as it is, with the preset that its page names."""

import json
import sys

import pytest

from msth_taichi.cli import main
from tests.scene.captures import CAPTURES

PRESETS = {
    "n3v": "n3v",
    "immersive": "immersive",
    "campus": "n3v",
    "technicolor": "n3v",
    "dynamic3dgs": "multiview",
    "dnerf": "dnerf",
    "nerf_synthetic": "dnerf",
    "hypernerf": "monocular",
    "dycheck": "monocular",
    "images": "monocular",
    "multiview": "multiview",
    "colmap": "monocular",
}

SMALL = [
    "data.downscale=1",
    "field.levels=2",
    "field.log2_static=8",
    "field.log2_dynamic=8",
    "field.mask_resolution=4",
    "field.base_resolution=[4, 4, 4, 2]",
    "field.max_resolution=[8, 8, 8, 4]",
    "proposals.0.levels=2",
    "proposals.0.log2_static=8",
    "proposals.0.log2_dynamic=8",
    "proposals.0.mask_resolution=4",
    "proposals.0.base_resolution=[4, 4, 4, 2]",
    "proposals.0.max_resolution=[8, 8, 8, 4]",
    "proposals.0.samples=8",
    "rays.samples=4",
    "training.rays_per_step=32",
    "training.steps=2",
]


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["msth", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert not stop.value.code, captured.err

    return run


def test_every_format_has_a_preset():
    assert PRESETS.keys() == CAPTURES.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_trains_and_evaluates(run, tmp_path, name):
    data, output = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    CAPTURES[name](data)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    run("train", data, "--preset", PRESETS[name], "--output", output, "--arch", "cpu", *settings)
    run("eval", output, "--arch", "cpu")
    result = json.loads(next((output / "eval").glob("step-*.json")).read_text())
    assert json.loads((output / "scene.json").read_text())["format"] == name
    assert result["step"] == 2 and 0 < result["psnr"] < 60

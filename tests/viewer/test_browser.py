"""`msth view` in a real browser; skipped with a message where there is none."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from msth_taichi.rendering.paths import make_path
from msth_taichi.rendering.writers import to_uint8
from msth_taichi.training.checkpoint import checkpoint_path
from msth_taichi.training.run import Run, load_run
from msth_taichi.viewer.frusta import user_poses
from tests.viewer.browser import Page, require_browser


@pytest.fixture
def run(tiny_run_copy: Path) -> Run:
    """A run in which every place and moment looks different."""
    file = checkpoint_path(tiny_run_copy) / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, values in load_file(file).items():
        size = 2.5 / values.shape[1] ** 0.5 if "weights" in name else 2.0
        tensors[name] = (torch.rand(values.shape, generator=generator) * 2 - 1) * size
    save_file(tensors, file)
    return load_run(tiny_run_copy)


@pytest.fixture
def viewer(run):
    """Address of the run's viewer; what it writes is shown where a test fails."""
    command = [sys.executable, "-u", "-m", "msth_taichi", "view", str(run.path), "--port", "0", "--arch", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            yield re.search(r"http://\S+(?=;)", process.stdout.readline())[0]
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
    assert process.returncode == 0 and "Traceback" not in rest, rest


@pytest.fixture
def page(viewer, tmp_path):
    opened = Page(viewer, tmp_path / "browser")
    yield opened
    opened.close()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over pixels and channels, of 255."""
    return float(np.abs(first.astype(float) - second).mean())


def downloaded(page: Page, name: str) -> Path:
    page.wait_for(lambda: list(page.downloads.glob(name)))
    return next(page.downloads.glob(name))


@pytest.fixture(scope="module", autouse=True)
def _browser():
    require_browser()


def test_a_run_in_a_browser(page, run):
    page.tab("Scene")
    page.tick("Show cameras")
    page.tab("Path")
    page.press("Add key")
    page.press("Save path")
    path = downloaded(page, "path.json")
    key = json.loads(path.read_text())["keys"][0]
    np.testing.assert_allclose(key["pose"], user_poses(run.scene)[0], atol=1e-3)  # the first camera's, with its roll
    page.tab("View")
    first = page.sharp()

    # the very picture that `msth render --path` makes of the saved camera
    page.press("Screenshot")
    picture = np.array(Image.open(downloaded(page, "rgb-*.png")))
    height, width = picture.shape[:2]
    camera = make_path(run.scene, str(path), size=(width, height))
    rendered = to_uint8(run.renderer.image(camera.cameras, 0, 0.0)["rgb"].cpu().numpy())
    assert rendered.std() > 10  # not one colour, which would say nothing
    assert np.abs(picture.astype(int) - rendered).max() <= 2
    assert path.read_bytes() == (run.path / "paths" / "path.json").read_bytes()

    # and it is what the screen shows
    assert difference(first, page.beside(Image.fromarray(rendered))) < 1

    page.drag(120, 40)
    dragged = page.sharp()
    assert difference(first, dragged) > 3

    page.type("Time", 0.5)
    later = page.sharp()
    assert difference(dragged, later) > 1

    page.choose("depth")
    depth = page.sharp()
    assert difference(later, depth) > 3
    page.choose("mask")
    mask = page.sharp()
    assert difference(depth, mask) > 3
    assert np.ptp(mask.astype(int), axis=2).max() <= 4  # grey

    assert page.errors() == []

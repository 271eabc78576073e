"""LPIPS: asked for with the extra, without it, and without its weights. The networks are stood in for."""

import json
import sys
import urllib.error
from types import ModuleType, SimpleNamespace

import pytest
import torch

from msth_taichi.errors import RunError
from msth_taichi.evaluation.evaluate import evaluate, page_path
from msth_taichi.evaluation.perceptual import Perceptual
from msth_taichi.evaluation.report import evaluation_lines
from msth_taichi.training.run import load_run

CPU = torch.device("cpu")


class Network(torch.nn.Module):
    """Mean absolute difference, tenfold for VGG, of images that the package sees in [-1, 1]."""

    def __init__(self, net, verbose):
        super().__init__()
        assert not verbose
        self.factor = {"alex": 1, "vgg": 10}[net]

    def forward(self, a, b, normalize):
        assert a.shape[:2] == b.shape[:2] == (1, 3) and normalize
        return (2 * (a - b)).abs().mean().view(1, 1, 1, 1) * self.factor


def offline(net, verbose):
    raise urllib.error.URLError("no network")


@pytest.fixture
def packages(monkeypatch):
    """packages(make) puts stand-ins for lpips and torchvision into their place; None takes lpips away."""

    def install(make):
        weights = {
            "AlexNet_Weights": SimpleNamespace(DEFAULT=SimpleNamespace(url="https://weights/alexnet-1.pth")),
            "VGG16_Weights": SimpleNamespace(DEFAULT=SimpleNamespace(url="https://weights/vgg16-1.pth")),
        }
        torchvision, lpips = ModuleType("torchvision"), ModuleType("lpips")
        torchvision.models = SimpleNamespace(**weights)  # type: ignore[attr-defined]
        lpips.LPIPS = make  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision", torchvision)
        monkeypatch.setitem(sys.modules, "lpips", lpips if make else None)

    return install


@pytest.fixture
def run(tiny_run_copy):
    return load_run(tiny_run_copy)


def test_both_networks_are_asked(packages):
    packages(Network)
    values = Perceptual(CPU)(torch.full((32, 40, 3), 0.6), torch.full((32, 40, 3), 0.5))
    assert values == pytest.approx({"lpips_alex": 0.2, "lpips_vgg": 2.0})


def test_small_images_have_none(packages, run, tiny_scene):
    packages(Network)
    result = evaluate(run, tiny_scene, every=2, progress=False, lpips=True)
    assert result["lpips_alex"] is None and result["lpips_vgg"] is None


def test_values_reach_json_page_and_terminal(packages, run, tiny_scene, monkeypatch):
    packages(Network)
    monkeypatch.setattr("msth_taichi.evaluation.perceptual.SMALLEST", 8)
    result = evaluate(run, tiny_scene, every=2, progress=False, lpips=True)
    assert result["lpips_vgg"] == pytest.approx(10 * result["lpips_alex"]) and result["lpips_alex"] > 0
    assert json.loads(page_path(run).with_suffix(".json").read_text())["lpips_alex"] == result["lpips_alex"]
    raw, _ = page_path(run).read_text().split("## After an affine")
    assert "LPIPS (AlexNet) | LPIPS (VGG)" in raw and f"{result['lpips_vgg']:.4f}" in raw
    assert any(f"LPIPS {result['lpips_alex']:.4f}" in line for line in evaluation_lines(result))


def test_without_the_package_nothing_is_begun(packages, run, tiny_scene):
    packages(None)
    with pytest.raises(RunError, match=r"pip install 'msth_taichi\[lpips\]'"):
        evaluate(run, tiny_scene, every=2, progress=False, lpips=True)
    assert not (run.path / "eval").exists()


def test_without_weights_all_else_is_written_and_their_place_is_named(packages, run, tiny_scene, monkeypatch):
    packages(offline)
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")
    with pytest.raises(RunError) as error:
        evaluate(run, tiny_scene, every=2, progress=False, lpips=True)
    message = str(error.value)
    assert "https://weights/alexnet-1.pth" in message and "no network" in message and "\n" not in message
    assert "/elsewhere/hub/checkpoints/alexnet-1.pth" in message and str(page_path(run)) in message
    result = json.loads(page_path(run).with_suffix(".json").read_text())
    assert result["psnr"] > 0 and result["lpips_alex"] is None
    assert page_path(run).is_file()


def test_a_torchvision_of_another_torch_is_told(packages, monkeypatch):
    packages(Network)

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("msth_taichi.evaluation.perceptual.import_module", broken)
    with pytest.raises(RunError, match="install the torchvision that goes with torch"):
        Perceptual(CPU)

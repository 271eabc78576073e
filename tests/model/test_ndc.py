import pytest
import torch

from msth_taichi.config import load_preset
from msth_taichi.errors import ConfigError
from msth_taichi.model.ndc import ndc_distance, ndc_parameter, ndc_rays
from msth_taichi.model.rays import camera_rays
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.bounds import with_bounds
from tests.comparison import assert_close
from tests.scene import data_sets

NDC = ["rays.ndc=true", "rays.contraction=none", "rays.spacing=uniform", "data.orientation=forward"]


def random_rays(count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(count, 3, generator=generator).double() * 0.3
    directions = torch.randn(count, 3, generator=generator).double()
    directions[:, 2] = -1 - directions[:, 2].abs()
    return origins, directions / directions.norm(dim=1, keepdim=True)


def test_a_point_is_where_the_formula_says():
    """Walked along the ray in scene units and mapped, or along the mapped ray: the same point."""
    origins, directions = random_rays()
    moved, way, depth = ndc_rays(origins, directions, 0.8)
    for t in (0.0, 0.3, 0.9, 0.999):
        distance = ndc_distance(torch.full((50,), t, dtype=torch.float64), depth, 0.8)
        x, y, z = (origins + distance[:, None] * directions).unbind(1)
        expected = torch.stack([x / -z, y / -z, 1 + 2 * 0.8 / z], dim=1)
        assert_close(moved + t * way, expected, 1e-9)
        assert_close(z, torch.full((50,), -0.8 / (1 - t), dtype=torch.float64), 1e-6)
        assert ndc_parameter(0.8 / (1 - t), 0.8) == pytest.approx(t)


def test_what_looks_away_sees_nothing():
    _, way, depth = ndc_rays(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]), 1.0)
    assert (way == 0).all() and depth.isfinite().all()


def test_a_rig_that_looks_one_way_fills_the_cube(tmp_path, device):
    """Rays of a rig turned forward begin on the near plane and stay finite."""
    scene = load_scene(data_sets.multiview(tmp_path), load_preset("n3v", NDC).data)
    forward = -scene.cameras.camera_to_world[:, :, 2].mean(0)
    assert_close(forward / forward.norm(), torch.tensor([0.0, 0, -1]), 1e-5)
    cameras = scene.cameras.to(device)
    row, column = (torch.arange(n, device=device) for n in (10, 10))
    zero = torch.zeros(10, dtype=torch.int64, device=device)
    rays = camera_rays(cameras, zero, row, column, zero.float(), 0.3, 1000.0, 1.0, 0.3)
    assert rays.ndc is not None and (rays.near >= 0).all() and (rays.far <= 1).all() and (rays.far > rays.near).any()
    assert all(len(part.ndc) == 5 for part in rays.split(5) if part.ndc is not None)


def test_renders_have_depths_in_scene_units(make_model, device):
    from msth_taichi.model.renderer import render_image

    settings = [*NDC, "rays.near=0.2", "field.log2_static=10", "field.log2_dynamic=10"]
    scene = load_scene("synthetic:cameras=3,test_cameras=1,frames=2,width=12,height=8", load_preset("demo", NDC).data)
    model = make_model(*settings)
    image = render_image(model, scene.cameras, 0, 0.5)
    assert image["depth"].isfinite().all() and (image["depth"] > 0).all()
    assert image["depth"].max() > 1, "beyond what a parameter in [0, 1] could say"


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"rays\.ndc needs"):
        load_preset("n3v", ["rays.ndc=true"])


def test_bounds_come_from_the_data(tiny_scene):
    import dataclasses

    config = load_preset("dnerf", ["rays.bounds=data"])
    scene = dataclasses.replace(tiny_scene, bounds=(0.5, 3.0))
    assert with_bounds(config, scene).rays.near == pytest.approx(0.4)
    assert with_bounds(config, scene).rays.far == pytest.approx(3.75)
    contracted = with_bounds(load_preset("n3v", ["rays.bounds=data"]), scene).rays
    assert contracted.near == pytest.approx(0.4) and contracted.far == 1000.0
    guessed = with_bounds(config, tiny_scene).rays
    assert 0 < guessed.near < guessed.far
    assert with_bounds(load_preset("dnerf"), scene).rays.near == 0.1, "only where it is asked for"

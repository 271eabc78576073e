"""What each output says, against what the renderer gave."""

import dataclasses

import numpy as np
import pytest
import torch

from msth_taichi.errors import RunError
from msth_taichi.model.uncertainty import U_MIN
from msth_taichi.ops.rays import generate_rays
from msth_taichi.rendering.outputs import OUTPUTS, require_trained
from msth_taichi.rendering.view import View
from msth_taichi.scene.normalize import SceneTransform
from tests.settings import changed

TURN = np.array([[0.0, -1.0, 0.0], [0.8, 0.0, -0.6], [0.6, 0.0, 0.8]])


def seen(run, index=0, time=0.5, **scene) -> View:
    """A view of the run, in a scene that is changed."""
    run = dataclasses.replace(run, scene=dataclasses.replace(run.scene, **scene))
    return View(run, run.scene.cameras, index, time)


def test_depth_is_in_the_units_of_the_data_set(tiny_run):
    view = seen(tiny_run, transform=SceneTransform(np.eye(3), np.zeros(3), 0.25))
    image = tiny_run.renderer.image(tiny_run.scene.cameras, 0, 0.5)
    solid = (image["accumulation"] >= 0.5).numpy()
    depth = OUTPUTS["depth"].values(view)
    assert depth.dtype == np.float32 and solid.any()
    np.testing.assert_array_equal(np.isnan(depth), ~solid)
    np.testing.assert_allclose(depth[solid], 4 * image["depth"].numpy()[solid], rtol=1e-6)


@pytest.mark.parametrize("behind", ["black", "white"])
def test_what_moves_lies_over_its_background_as_it_was_rendered(tiny_run, behind):
    config = changed(tiny_run.config, f"rays.background={behind}")
    tiny_run.model.config, before = config, tiny_run.model.config
    try:
        view = seen(tiny_run)
        found, rendered = OUTPUTS["dynamic"].values(view), view.image("dynamic")["rgb"].numpy()
    finally:
        tiny_run.model.config = before
    color, alpha = found[..., :3], found[..., 3:]
    assert 0.01 < alpha.mean() < 1
    np.testing.assert_allclose(color * alpha + (1 - alpha) * (behind == "white"), rendered, atol=2e-3)


def test_normals_of_a_plane(tiny_run):
    view = seen(tiny_run, transform=SceneTransform(TURN, np.ones(3), 0.5))
    camera = tiny_run.scene.cameras.select([0])
    pose = camera.camera_to_world[0]
    normal = pose[:, :3] @ torch.tensor([0.48, 0.36, 0.8])  # of a plane two units ahead
    offset = normal @ (pose[:, 3] - 2 * pose[:, 2])
    width, height = camera.size(0)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    origins, directions = generate_rays(
        torch.stack([x, y], -1).view(-1, 2),
        torch.zeros(height * width, dtype=torch.int32),
        camera.camera_to_world,
        camera.intrinsics,
        camera.distortion,
        camera.lens,
    )
    depth = ((offset - origins @ normal) / (directions @ normal)).view(height, width)
    depth[:4] = torch.nan
    view.depth = depth / 0.5
    found = OUTPUTS["normals"].values(view)
    known = ~np.isnan(found[..., 0])
    assert known[4:].all() and not known[:4].any()
    np.testing.assert_allclose(found[4:], np.broadcast_to(normal.numpy() @ TURN, (height - 4, width, 3)), atol=0.02)
    assert not OUTPUTS["normals"].picture(found, None)[~known].any()


def test_uncertainty_is_that_of_what_the_ray_meets(tiny_run, make_model):
    model = make_model("mask.objective=uncertainty")
    with torch.no_grad():
        for parameter in model.uncertainty.parameters():
            parameter.zero_()
    view = seen(dataclasses.replace(tiny_run, model=model))
    found = OUTPUTS["uncertainty"].values(view)
    expected = U_MIN + np.log(2) * view.image("full")["accumulation"].cpu().numpy()
    np.testing.assert_allclose(found, expected, rtol=5e-3 if model.compute == torch.float16 else 1e-4)
    low, high = OUTPUTS["uncertainty"].picture(np.array([[1.3 * U_MIN, 0.8]], np.float32), None)[0].astype(int)
    assert low[2] > low[0] and high[0] > high[2]


def test_uncertainty_of_a_run_without_is_refused(tiny_config):
    with pytest.raises(RunError, match=r"--outputs uncertainty: the run was trained without"):
        require_trained(("rgb", "uncertainty"), tiny_config)
    require_trained(("uncertainty",), changed(tiny_config, "mask.objective=uncertainty"))
    with pytest.raises(RunError, match="blend 'add' has no mask"):
        require_trained(("uncertainty",), changed(tiny_config, "mask.objective=uncertainty", "field.blend=add"))


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name != "uncertainty"])
def test_pictures_are_bytes_of_the_image_s_size(tiny_run, name):
    output = OUTPUTS[name]
    values = output.values(seen(tiny_run))
    picture = output.picture(values, (0.1, 2.0))
    assert values.dtype == np.float32 and picture.dtype == np.uint8
    assert picture.shape == (18, 24, 4 if name == "dynamic" else 3)

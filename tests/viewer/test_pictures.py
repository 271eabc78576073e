"""The viewer's pictures are those of `msth render`."""

from dataclasses import replace

import numpy as np
import pytest

from msth_taichi.rendering.outputs import OUTPUTS
from msth_taichi.rendering.pictures import inverse_range
from msth_taichi.rendering.view import View
from msth_taichi.rendering.writers import over_black
from msth_taichi.viewer.frames import TrainingFrames
from msth_taichi.viewer.pictures import Outdated, render_request
from msth_taichi.viewer.requests import VIEWS, Request


@pytest.fixture
def request_(tiny_run) -> Request:
    scene = tiny_run.scene
    pose = scene.transform.invert_poses(scene.cameras.camera_to_world[0].double().numpy())
    return Request(pose, fov(scene), 0.25, scene.cameras.size(0))


def fov(scene) -> float:
    return float(np.degrees(2 * np.arctan(0.5 * scene.cameras.size(0)[1] / scene.cameras.intrinsics[0, 1].item())))


def picture(run, request, **changes):
    request = replace(request, **changes)
    return render_request(run, run.renderer, request, request.size)[0]


@pytest.mark.parametrize("name", VIEWS)
def test_pictures_are_those_of_a_render(tiny_run, request_, name):
    output = OUTPUTS[name]
    values = output.values(View(tiny_run, tiny_run.scene.cameras, 0, 0.25))
    limits = inverse_range(1 / values) if name == "depth" else None
    expected = over_black(output.picture(values, limits)).astype(int)
    assert np.abs(picture(tiny_run, request_, output=name).astype(int) - expected).max() <= 2


def test_depth_keeps_the_limits_it_is_given(tiny_run, request_):
    _, limits = render_request(tiny_run, tiny_run.renderer, replace(request_, output="depth"), (12, 9))
    _, again = render_request(tiny_run, tiny_run.renderer, replace(request_, output="depth", limits=limits), (24, 18))
    assert again == limits is not None


def test_masks_below_the_threshold_are_coloured(tiny_run, request_):
    masks = OUTPUTS["mask"].values(View(tiny_run, tiny_run.scene.cameras, 0, 0.25))
    threshold = float(np.median(masks))
    plain = picture(tiny_run, request_, output="mask")
    tinted = picture(tiny_run, request_, output="mask", threshold=threshold)
    coloured = (tinted != plain).any(-1)
    assert 0.3 < coloured.mean() < 0.7
    assert masks[coloured].max() <= masks[~coloured].min() + 1e-6


def test_a_crop_of_everything_changes_nothing(tiny_run, request_):
    everything = np.array([[-1e6] * 3, [1e6] * 3])
    whole, cropped = (picture(tiny_run, request_, output="depth", crop=crop) for crop in (None, everything))
    np.testing.assert_array_equal(whole, cropped)


def test_outside_of_a_crop_is_nothing(tiny_run, request_):
    aside = request_.pose[:, 3] + np.array([[5.0, 5.0, 5.0], [6.0, 6.0, 6.0]]) * np.sign(request_.pose[:, 2])
    crop = np.sort(aside, axis=0)  # behind the camera
    for output in ("rgb", "accumulation", "static", "dynamic"):
        assert not picture(tiny_run, request_, output=output, crop=crop).any(), output


def test_a_crop_keeps_what_is_inside(tiny_run, request_):
    """Through a box of a half-space, pixels whose rays never enter it are empty and others are not."""
    position, ahead = request_.pose[:, 3], -request_.pose[:, 2]
    near = position + 0.5 * ahead
    crop = np.stack([near - 0.1, near + 0.1])
    found = picture(tiny_run, request_, output="accumulation", crop=crop)
    height, width = found.shape[:2]
    assert found[height // 2, width // 2].any()
    assert not found[0, 0].any() and not found[-1, -1].any()


def test_a_picture_nobody_wants_is_given_up(tiny_run, request_):
    with pytest.raises(Outdated):
        render_request(tiny_run, tiny_run.renderer, request_, (24, 18), lambda: False)


def test_frames_are_those_of_the_time(tiny_scene):
    frames = TrainingFrames(tiny_scene, lambda *_: pytest.fail("there are frames"))
    images = tiny_scene.images("train")
    assert frames.cameras == [0, 1, 2]
    for time, frame in ((0.0, 0), (0.24, 0), (0.25, 1), (0.6, 2), (1.0, 3)):
        row = frames.image_at(1, time)
        assert int(images.camera[row]) == 1 and int(images.frame[row]) == frame
    row = frames.image_at(2, 0.5)
    np.testing.assert_array_equal(frames.picture(2, row), next(images.select([row]).read()))


def test_without_a_data_set_frames_are_rendered(tiny_run):
    asked = []

    def render(camera, time, size):
        asked.append((camera, time, size))
        return np.zeros((size[1], size[0], 3), np.uint8)

    without = replace(tiny_run.scene, splits={k: replace(v, source=None) for k, v in tiny_run.scene.splits.items()})
    frames = TrainingFrames(without, render)
    frames.picture(1, frames.image_at(1, 0.5))
    frames.picture(1, frames.image_at(1, 0.5))
    assert asked == [(1, 0.5, (24, 18))]  # kept


def test_of_many_cameras_some_are_shown(tiny_scene):
    assert TrainingFrames(tiny_scene, lambda *_: np.zeros(0), most=2).cameras == [0, 2]

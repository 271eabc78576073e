"""What a user reads about a rig as it should be, and about rigs with one fault."""

import json
from dataclasses import replace

import numpy as np
import pytest

from msth_taichi.checking.check import Report, check, check_scene
from msth_taichi.errors import DataError
from msth_taichi.scene.scene import Scene
from tests.checking.spoiling import delayed, frames_of, room, tinted, turned, with_frames, with_signs
from tests.scene.rig import room_rig, write_video


@pytest.fixture(scope="module")
def rig() -> Scene:
    return room()


def looked_at(scene: Scene) -> Report:
    return check_scene(scene, progress=False)


def faults(report: Report, *levels: str) -> dict[str, set[str]]:
    """Names in errors (or other levels), by check."""
    found: dict[str, set[str]] = {}
    for finding in report.findings:
        if finding.level in (levels or ("error",)):
            found.setdefault(finding.check, set()).update(finding.cameras)
    return found


def test_a_good_rig_gives_no_alarm(rig):
    report = looked_at(rig)
    assert {finding.level for finding in report.findings} == {"ok"}
    assert report.status == 0
    checks = {finding.check for finding in report.findings}
    assert checks == {"counts", "time", "synchronisation", "poses", "colours", "extent", "memory"}


@pytest.mark.parametrize("shift", [5, -3, 2])
def test_a_camera_out_of_step_is_named_with_its_lag(rig, shift):
    report = looked_at(delayed(rig, 3, shift))
    assert faults(report) == {"synchronisation": {"cam03"}}
    finding = next(finding for finding in report.findings if finding.level == "error")
    assert f"{shift:+d} frames" in finding.measured
    assert f'"start_frame": {abs(shift)}' in finding.remedy
    assert ("cam03" in finding.remedy) == (shift > 0)  # an early camera: the others have to start later


def test_a_frame_of_shutter_is_no_fault(rig):
    assert looked_at(delayed(rig, 3, 1)).status == 0


@pytest.mark.parametrize(
    ("signs", "remedy"),
    [((1, -1, -1), "OpenCV"), ((-1, -1, 1), "upside down"), ((-1, 1, 1), "mirrored left to right")],
)
def test_a_flipped_camera_is_named_with_its_axes(rig, signs, remedy):
    report = looked_at(with_signs(rig, [2], *signs))
    assert faults(report) == {"poses": {"cam02"}}
    assert remedy in next(finding for finding in report.findings if finding.level == "error").remedy


@pytest.mark.parametrize(
    ("signs", "remedy"), [((1, -1, -1), "OpenCV"), ((-1, -1, 1), "upside down"), ((-1, 1, 1), "mirrored left to right")]
)
def test_axes_of_another_convention_everywhere_are_one_error(rig, signs, remedy):
    report = looked_at(with_signs(rig, range(len(rig.cameras)), *signs))
    errors = [finding for finding in report.findings if finding.level == "error"]
    assert len(errors) == 1 and remedy in errors[0].remedy


def test_of_a_rig_in_another_convention_a_late_camera_is_found_as_well(rig):
    report = looked_at(with_signs(delayed(rig, 3, 5), range(len(rig.cameras)), 1, -1, -1))
    assert faults(report) == {"poses": set(), "synchronisation": {"cam03"}}


def test_a_pose_that_is_slightly_off_is_a_warning(rig):
    report = looked_at(turned(rig, 4, 4))
    assert report.status == 0
    assert faults(report, "warning") == {"poses": {"cam04"}}


def test_a_camera_in_other_units_is_named(rig):
    poses = rig.cameras.camera_to_world.clone()
    poses[5, :, 3] *= 1000
    report = looked_at(replace(rig, cameras=rig.cameras.with_poses(poses)))
    assert "cam05" in faults(report)["poses"]
    assert any("far away" in finding.title for finding in report.findings)


def test_colours_that_differ_are_named(rig):
    report = looked_at(tinted(rig, 3, 1.12, 1.0, 0.95))
    assert faults(report, "error", "warning") == {"colours": {"cam03"}}
    balance = next(finding for finding in report.findings if "white balance" in finding.title)
    assert "cam03 (R +9%" in balance.measured or "cam03 (R +10%" in balance.measured


def test_a_darker_camera_is_named_with_how_much(rig):
    report = looked_at(tinted(rig, 1, 0.85, 0.85, 0.85))
    assert faults(report, "error", "warning") == {"colours": {"cam01"}}
    exposure = next(finding for finding in report.findings if finding.level == "warning")
    assert "cam01 -15%" in exposure.measured


def test_a_still_scene_is_checked_by_its_corners():
    scene = room(cameras=12, frames=2)
    frames = frames_of(scene)
    frames[:] = frames[:, :1]
    report = looked_at(with_frames(scene, frames))
    assert report.status == 0
    assert any(finding.title == "not checked" for finding in report.findings if finding.check == "synchronisation")
    frames[4] = frames[4][:, ::-1, ::-1]  # the camera hung upside down
    assert faults(looked_at(with_frames(scene, frames))) == {"poses": {"cam04"}}


def write_rig(folder, cut: int | None = None):
    """A folder of videos with transforms.json; the second may end early."""
    rig = room_rig(cameras=4, frames=8)
    entries = []
    for k, (view, frames) in enumerate(zip(rig.views, rig.frames, strict=True)):
        write_video(folder / f"{view.name}.mp4", frames[: cut if k == 1 else None])
        pose = np.vstack([view.pose, [0, 0, 0, 1]]).tolist()
        fx, fy, cx, cy = view.intrinsics
        intrinsics = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
        entries.append({"file_path": f"{view.name}.mp4", "transform_matrix": pose, **intrinsics})
    (folder / "transforms.json").write_text(json.dumps({"num_frames": 8, "fps": 25, "frames": entries}))
    return folder


def test_a_video_that_ends_early_is_named_and_the_rest_is_checked(tmp_path):
    report = check(str(write_rig(tmp_path, cut=5)), progress=False)
    assert faults(report) == {"counts": {"cam01"}}
    finding = next(finding for finding in report.findings if finding.level == "error")
    assert "5 frames" in finding.measured and "data.num_frames=5" in finding.remedy
    assert any(finding.check == "poses" for finding in report.findings)


def test_a_damaged_video_is_refused_by_name(tmp_path):
    folder = write_rig(tmp_path)
    content = (folder / "cam02.mp4").read_bytes()
    (folder / "cam02.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cam02\.mp4"):
        check(str(folder), progress=False)


def test_other_frame_rates_are_named(tmp_path):
    folder = write_rig(tmp_path)
    write_video(folder / "cam02.mp4", room_rig(cameras=4, frames=8).frames[2], fps=50)
    assert faults(check(str(folder), progress=False)) == {"counts": {"cam02"}}


def test_one_moving_camera_is_checked_image_by_image():
    # an image of every camera: a camera that moves along the arc
    scene = room(cameras=24, frames=1)
    scene = replace(scene, static_cameras=False)
    report = looked_at(scene)
    assert report.status == 0
    assert any(finding.check == "poses" and "fit their poses" in finding.title for finding in report.findings)
    assert "cam10" in faults(looked_at(with_signs(scene, [10], -1, -1, 1)))["poses"]


def test_colours_of_a_moving_camera_raise_no_alarm():
    # every image is of another time, and the scene has moved
    scene = room(cameras=9, frames=10)
    images = {k: t.select([k * 10 + k for k in range(len(t) // 10)]) for k, t in scene.splits.items()}
    report = looked_at(replace(tinted(scene, 4, 1.2, 1.0, 1.0), splits=images, static_cameras=False))
    assert faults(report, "warning", "error") == {}
    assert any(finding.title == "not checked" for finding in report.findings if finding.check == "colours")


def test_the_page_stands_alone(rig, tmp_path):
    report = looked_at(delayed(rig, 3, 5))
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/") == 2
    for finding in report.findings:
        assert finding.check in page
    assert report.lines()[0].startswith("error    synchronisation: cam03")

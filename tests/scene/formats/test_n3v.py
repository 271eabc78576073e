"""The built-in scene as Neural 3D Video lays it out, and what users do to such folders."""

from pathlib import Path

import numpy as np
import pytest

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.formats import n3v
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig, write_video

NEAR, FAR = 0.3, 4.0


@pytest.fixture(scope="module")
def rig() -> Rig:
    return room_rig(cameras=4, frames=3)


@pytest.fixture
def folder(rig, tmp_path) -> Path:
    return write(rig, tmp_path)


def write(rig: Rig, folder: Path) -> Path:
    """`poses_bounds.npy` with a row of 3 x 5 and two depths a camera, and `cam00.mp4` ..."""
    rows = []
    for k, view in enumerate(rig.views):
        right, up, back, position = view.pose.T
        size = [view.height, view.width, view.intrinsics[0]]
        matrix = np.stack([-up, right, back, position, size], 1)
        rows.append([*matrix.ravel(), NEAR + 0.1 * k, FAR - 0.1 * k])
        write_video(folder / f"cam{k:02d}.mp4", list(rig.frames[k]), rig.fps)
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return folder


def edit(folder: Path, spoil) -> None:
    rows = np.load(folder / "poses_bounds.npy")
    np.save(folder / "poses_bounds.npy", spoil(rows))


def fails(folder: Path, *words: str, config: DataConfig = AS_IS) -> None:
    with pytest.raises(DataError) as caught:
        n3v.load(folder, config)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_same_scene_with_cam00_held_out(rig, folder):
    assert n3v.detects(folder)
    scene = n3v.load(folder, AS_IS)
    assert_same_scene(scene, rig, {"train": [1, 2, 3], "test": [0]})
    assert (scene.format, scene.num_frames, scene.fps, scene.static_cameras) == ("n3v", 3, rig.fps, True)
    assert scene.cameras.names == ("cam00", "cam01", "cam02", "cam03")
    assert scene.bounds == pytest.approx((NEAR, FAR))


def test_videos_of_half_the_calibrated_size(rig, folder):
    """As after the usual resizing from 2704x2028 to 1352x1014."""

    def twice(rows):
        pose = rows[:, :15].reshape(-1, 3, 5)
        pose[..., 4] *= 2
        return rows

    edit(folder, twice)
    assert_same_scene(n3v.load(folder, AS_IS), rig, {"train": [1, 2, 3], "test": [0]})


def test_first_frames(folder):
    scene = n3v.load(folder, DataConfig(num_frames=2))
    assert scene.num_frames == 2 and len(scene.images("test")) == 2


def test_what_a_mac_leaves_behind_is_no_camera(rig, folder):
    (folder / "._cam00.mp4").write_bytes(b"junk")
    assert len(n3v.load(folder, AS_IS).cameras) == 4


def test_lone_camera_trains(rig, folder):
    for k in (1, 2, 3):
        (folder / f"cam{k:02d}.mp4").unlink()
    edit(folder, lambda rows: rows[:1])
    assert set(n3v.load(folder, AS_IS).splits) == {"train"}


def test_more_rows_than_videos(folder):
    (folder / "cam02.mp4").unlink()
    fails(folder, "poses_bounds.npy", "4 rows", "3 videos", "restore")


def test_no_videos(folder):
    for file in folder.glob("*.mp4"):
        file.unlink()
    fails(folder, "no video", "cam00.mp4")


def test_truncated_video(rig, folder):
    write_video(folder / "cam01.mp4", list(rig.frames[1, :2]))
    fails(folder, "cam01.mp4: 2 frames", "cam00.mp4 has 3", "data.num_frames=2")
    (folder / "cam01.mp4").write_bytes((folder / "cam02.mp4").read_bytes()[:300])
    fails(folder, "cam01.mp4")


def test_more_frames_asked_for_than_there_are(folder):
    fails(folder, "cam00.mp4: 3 frames", "num_frames is 9", config=DataConfig(num_frames=9))


def test_cropped_video(folder):
    write_video(folder / "cam01.mp4", list(np.zeros((3, 24, 24, 3), np.uint8)))
    fails(folder, "cam01.mp4: 24x24", "poses_bounds.npy", "32x24", "cropping")


def test_calibration_that_unpickles_is_refused(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    np.save(folder / "poses_bounds.npy", np.array([Trap()], object), allow_pickle=True)
    fails(folder, "poses_bounds.npy", "restore")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: rows[:, :12], ("4 x 12", "17 numbers")),
        (lambda rows: rows.astype(str), ("not an array of numbers",)),
        (lambda rows: np.where(np.arange(17) == 3, np.nan, rows), ("not finite",)),
        (lambda rows: np.where(np.arange(17) == 14, 0.0, rows), ("row 0", "focal length")),
        (lambda rows: rows * np.where(np.arange(17) % 5 == 1, -1, 1), ("row 0", "rigid", "down, right, back")),
        (lambda rows: rows[:, [*range(15), 16, 15]], ("nearest < farthest",)),
    ],
)
def test_spoilt_calibration(folder, spoil, words):
    edit(folder, spoil)
    fails(folder, "poses_bounds.npy", *words)
    (folder / "poses_bounds.npy").write_bytes((folder / "poses_bounds.npy").read_bytes()[:100])
    fails(folder, "poses_bounds.npy", "restore")

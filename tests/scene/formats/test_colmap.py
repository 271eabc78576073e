"""COLMAP's models, binary and text, written from the built-in scene and read back."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from msth_taichi.errors import DataError
from msth_taichi.lenses import FISHEYE, OPENCV
from msth_taichi.scene.assemble import View
from msth_taichi.scene.formats import colmap
from msth_taichi.scene.formats.colmap_model import read_model
from tests.scene.rig import AS_IS, Rig, assert_same_scene, room_rig, room_sweep

COUNT = 9
TRAIN, TEST = [0, 1, 2, 3, 5, 6, 7, 8], [4]
POINTS = np.random.default_rng(0).uniform(-1, 1, (500, 3))
NUMBERS = {"PINHOLE": 1, "OPENCV": 4, "OPENCV_FISHEYE": 5, "FOV": 7}

Row = tuple[str, View]
"""An image's name and what took it."""


@pytest.fixture(scope="module")
def sweep() -> Rig:
    return room_sweep(COUNT)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return room_rig(cameras=3, frames=3)


def quaternion(view: View) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera w, x, y, z and translation, y down and z forward."""
    rotation = (view.pose[:, :3] * [1, -1, -1]).T
    # the eigenvector of the largest eigenvalue (Bar-Itzhack 2000)
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        [[a - e - i, 0, 0, 0], [b + d, e - a - i, 0, 0], [c + g, f + h, i - a - e, 0], [h - f, c - g, d - b, a + e + i]]
    )
    x, y, z, w = np.linalg.eigh(k)[1][:, 3]
    return np.array([w, x, y, z]), -rotation @ view.pose[:, 3]


def model_of(view: View) -> tuple[str, list[float]]:
    k1, k2, k3, k4, _, _, p1, p2 = view.distortion
    if view.lens == FISHEYE:
        return "OPENCV_FISHEYE", [*view.intrinsics, k1, k2, k3, k4]
    if view.lens == OPENCV:
        return "OPENCV", [*view.intrinsics, k1, k2, p1, p2]
    return "PINHOLE", list(view.intrinsics)


def write_binary(folder: Path, rows: Sequence[Row]) -> None:
    """cameras.bin, images.bin and points3D.bin, and the two files of newer versions."""
    folder.mkdir(parents=True)
    cameras = images = b""
    for k, (name, view) in enumerate(rows):
        model, params = model_of(view)
        cameras += struct.pack(f"<IiQQ{len(params)}d", 100 + k, NUMBERS[model], view.width, view.height, *params)
        turn, shift = quaternion(view)
        images += struct.pack("<I7dI", 7 * k + 1, *turn, *shift, 100 + k) + name.encode() + b"\0"
        images += struct.pack("<Q", 2) + struct.pack("<ddq", 1.5, 2.5, 63390) + struct.pack("<ddq", 3.0, 4.0, -1)
    points = b""
    for k, point in enumerate(POINTS):
        track = [number for n in range(len(rows)) for number in (7 * n + 1, k)]
        points += struct.pack("<Q3d3BdQ", 3 * k, *point, 1, 2, 3, 0.5, len(rows))
        points += struct.pack(f"<{len(track)}I", *track)
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", len(rows)) + cameras)
    (folder / "images.bin").write_bytes(struct.pack("<Q", len(rows)) + images)
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(POINTS)) + points)
    for name in ("rigs", "frames"):
        (folder / f"{name}.bin").write_bytes(struct.pack("<Q", 0))


def write_text(folder: Path, rows: Sequence[Row]) -> None:
    folder.mkdir(parents=True)
    cameras = ["# Camera list with one line of data per camera:", "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    images = ["# Image list with two lines of data per image:"]
    points = ["# 3D point list with one line of data per point:"]
    for k, (name, view) in enumerate(rows):
        model, params = model_of(view)
        cameras.append(
            " ".join(map(repr, [100 + k, 0, view.width, view.height, *params])).replace(" 0 ", f" {model} ", 1)
        )
        turn, shift = quaternion(view)
        images.append(" ".join(map(str, [7 * k + 1, *turn.tolist(), *shift.tolist(), 100 + k, name])))
        images.append("1.5 2.5 63390 3.0 4.0 -1" if k % 2 else "")
    for k, point in enumerate(POINTS.tolist()):
        track = " ".join(f"{7 * n + 1} {k}" for n in range(len(rows)))
        points.append(f"{3 * k} {' '.join(map(str, point))} 1 2 3 0.5 {track}")
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_image(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, picture)


def sequence(folder: Path, sweep: Rig, write: Callable = write_binary, place: str = "sparse/0") -> Path:
    # without leading zeros: the tenth is not the second
    names = [f"frame_{v + 7}.png" for v in range(COUNT)]
    for name, picture in zip(names, sweep.frames[:, 0], strict=True):
        write_image(folder / "images" / name, picture)
    rows = list(zip(names, sweep.views, strict=True))
    write(folder / place, rows[::-1])
    return folder


def rig_folder(folder: Path, rig: Rig, write: Callable = write_binary, placed: int = 3) -> Path:
    """A folder a camera, of which COLMAP placed the first few images."""
    rows = []
    for v, pictures in enumerate(rig.frames):
        for t, picture in enumerate(pictures):
            name = f"cam{v:02d}/{t + 1:04d}.png"
            write_image(folder / "images" / name, picture)
            rows += [(name, rig.views[v])] if t < placed else []
    write(folder / "sparse/0", rows)
    return folder


def bent(rig: Rig, lens: int, *coefficients: float) -> Rig:
    scale = [1.0, 1.1, 1.05, 0.95]
    views = [
        replace(v, lens=lens, distortion=coefficients, intrinsics=tuple(np.array(v.intrinsics) * scale))
        for v in rig.views
    ]
    return replace(rig, views=views)


@pytest.mark.parametrize("write", [write_binary, write_text])
@pytest.mark.parametrize("place", ["sparse/0", "colmap/sparse/0", "sparse", "."])
def test_a_camera_that_moves(tmp_path, sweep, write, place):
    folder = sequence(tmp_path / "data", sweep, write, "model")
    for file in list((folder / "model").iterdir()):
        (folder / place).mkdir(parents=True, exist_ok=True)
        file.rename(folder / place / file.name)
    assert colmap.detects(folder)
    scene = colmap.load(folder, AS_IS)
    assert_same_scene(scene, sweep, {"train": TRAIN, "test": TEST})
    assert (scene.format, scene.num_frames, scene.static_cameras) == ("colmap", COUNT, False)
    distances = np.linalg.norm(POINTS[:, None] - np.stack([view.pose[:, 3] for view in sweep.views]), axis=-1)
    assert scene.bounds == pytest.approx(np.quantile(distances, (0.001, 0.999)))


@pytest.mark.parametrize("write", [write_binary, write_text])
@pytest.mark.parametrize("placed", [3, 1])
def test_a_rig(tmp_path, rig, write, placed):
    scene = colmap.load(rig_folder(tmp_path, rig, write, placed), AS_IS)
    assert_same_scene(scene, rig, {"train": [1, 2], "test": [0]})
    # equal poses are one view
    assert (len(scene.cameras), scene.static_cameras) == (3, True)
    assert scene.cameras.names == ("cam00", "cam01", "cam02")


@pytest.mark.parametrize(
    ("lens", "coefficients"),
    [(OPENCV, (0.1, -0.02, 0, 0, 0, 0, 0.002, 0.001)), (FISHEYE, (0.05, -0.01, 0.002, 0.001, 0, 0, 0, 0))],
)
def test_lenses(tmp_path, sweep, lens, coefficients):
    curved = bent(sweep, lens, *coefficients)
    scene = colmap.load(sequence(tmp_path, curved), AS_IS)
    assert_same_scene(scene, curved, {"train": TRAIN, "test": TEST})


@pytest.mark.parametrize(
    ("line", "lens", "intrinsics", "distortion"),
    [
        ("SIMPLE_PINHOLE 32 24 30 16 12", 0, (30, 30, 16, 12), {}),
        ("SIMPLE_RADIAL 32 24 30 16 12 .1", 1, (30, 30, 16, 12), {0: 0.1}),
        ("RADIAL 32 24 30 16 12 .1 .2", 1, (30, 30, 16, 12), {0: 0.1, 1: 0.2}),
        ("OPENCV 32 24 30 31 16 12 0 0 0 0", 0, (30, 31, 16, 12), {}),
        (
            "FULL_OPENCV 32 24 30 31 16 12 .1 .2 .01 .02 .3 .4 .5 .6",
            1,
            (30, 31, 16, 12),
            dict(enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.01, 0.02))),
        ),
        ("SIMPLE_RADIAL_FISHEYE 32 24 30 16 12 .1", 2, (30, 30, 16, 12), {0: 0.1}),
        ("RADIAL_FISHEYE 32 24 30 16 12 .1 .2", 2, (30, 30, 16, 12), {0: 0.1, 1: 0.2}),
    ],
)
def test_order_of_parameters(tmp_path, sweep, line, lens, intrinsics, distortion):
    folder = sequence(tmp_path, sweep, write_text)
    lines = "".join(f"{100 + k} {line}\n" for k in range(COUNT))
    (folder / "sparse/0/cameras.txt").write_text(lines)
    camera = read_model(folder / "sparse/0").cameras[103]
    assert (camera.lens, camera.intrinsics) == (lens, intrinsics)
    assert camera.distortion == tuple(distortion.get(k, 0.0) for k in range(8))


def test_an_image_that_was_not_placed_leaves_a_gap_in_time(tmp_path, sweep):
    folder = sequence(tmp_path, sweep)
    write_image(folder / "images/frame_99.png", sweep.frames[0, 0])
    assert colmap.load(folder, AS_IS).images("test").time.tolist() == pytest.approx([4 / (COUNT + 1)])


@pytest.mark.parametrize("write", [write_binary, write_text])
def test_of_several_models_the_largest_is_read(tmp_path, sweep, write):
    """COLMAP numbers them as it finds them."""
    folder = sequence(tmp_path, sweep, write, place="sparse/1")
    rows = [(file.name, view) for file, view in zip(sorted((folder / "images").iterdir()), sweep.views, strict=True)]
    write(folder / "sparse/0", rows[:3])
    write(folder / "sparse/10", rows[3:6])
    assert sum(len(images) for images in colmap.load(folder, AS_IS).splits.values()) == COUNT


def test_masks_that_hide_what_moves_from_colmap_are_not_read(tmp_path, sweep):
    folder = sequence(tmp_path, sweep)
    write_image(folder / "masks/frame_8.png.png", np.zeros(sweep.frames.shape[2:4], np.uint8))
    assert not colmap.load(folder, AS_IS).images("train").masked


def test_without_points_there_are_no_bounds(tmp_path, sweep):
    folder = sequence(tmp_path, sweep)
    (folder / "sparse/0/points3D.bin").write_bytes(bytes(8))
    assert colmap.load(folder, AS_IS).bounds is None
    (folder / "sparse/0/points3D.bin").unlink()
    assert colmap.load(folder, AS_IS).bounds is None


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def swap(name: str, old: bytes, new: bytes) -> Callable[[Path], object]:
    return edit(name, lambda data: data.replace(old, new, 1))


MODEL = "sparse/0"
CAMERAS, IMAGES, POINTS3D = f"{MODEL}/cameras", f"{MODEL}/images", f"{MODEL}/points3D"
MILLIARDS = struct.pack("<Q", 2**60)

BINARY = {
    "cameras cut off": (edit(f"{CAMERAS}.bin", lambda d: d[:-3]), "cameras.bin", "restore"),
    "cameras empty": (edit(f"{CAMERAS}.bin", lambda d: b""), "cameras.bin", "restore"),
    "count of milliards": (edit(f"{IMAGES}.bin", lambda d: MILLIARDS + d[8:]), "images.bin", "restore"),
    "keypoints of milliards": (
        swap(f"{IMAGES}.bin", b"\0" + struct.pack("<Q", 2), b"\0" + MILLIARDS),
        "images.bin",
        "damaged",
    ),
    "points of milliards": (edit(f"{POINTS3D}.bin", lambda d: MILLIARDS + d[8:]), "points3D.bin", "damaged"),
    "more than it says": (edit(f"{IMAGES}.bin", lambda d: d + b"\1"), "images.bin", "1 bytes more"),
    "no image": (edit(f"{IMAGES}.bin", lambda d: bytes(8)), "images.bin", "run COLMAP again"),
    "lens of no kind": (
        edit(f"{CAMERAS}.bin", lambda d: d[:12] + struct.pack("<i", 7) + d[16:]),
        "cameras.bin",
        "undistort",
    ),
    "focal length not a number": (
        edit(f"{CAMERAS}.bin", lambda d: d[:32] + struct.pack("<d", np.nan) + d[40:]),
        "cameras.bin",
        "restore",
    ),
    "turned by nothing": (edit(f"{IMAGES}.bin", lambda d: d[:12] + bytes(32) + d[44:]), "images.bin", "quaternion"),
    "camera of no number": (edit(f"{CAMERAS}.bin", lambda d: d[:8] + b"\xff" + d[9:]), "images.bin", "has not"),
    "name of two lines": (swap(f"{IMAGES}.bin", b"frame_9", b"frame\n9"), "images.bin", "damaged"),
    "name is not text": (swap(f"{IMAGES}.bin", b"frame_9", b"\xff\xfe\xfd____"), "images.bin", "damaged"),
    "image missing": (lambda f: (f / "images/frame_8.png").unlink(), "images/frame_8.png", "restore"),
    "image damaged": (lambda f: (f / "images/frame_8.png").write_bytes(b"\x89PNG"), "frame_8.png", "restore"),
    "image of another shape": (
        lambda f: write_image(f / "images/frame_8.png", np.zeros((8, 9, 3), np.uint8)),
        "frame_8.png",
        "without cropping",
    ),
    "no images": (lambda f: (f / "images").rename(f / "input"), "images", "put the images there"),
}
TEXT = {
    "short line": (swap(f"{CAMERAS}.txt", b"PINHOLE", b"PINHOLE #"), "cameras.txt", "restore"),
    "a word for a number": (swap(f"{IMAGES}.txt", b" 100 ", b" one "), "images.txt: line 2", "restore"),
    "points cut off": (edit(f"{POINTS3D}.txt", lambda d: d[:-5]), "points3D.txt: line 501", "restore"),
    "lens of no kind": (swap(f"{CAMERAS}.txt", b"PINHOLE", b"FOV"), "cameras.txt", "undistort"),
    "binary within": (edit(f"{IMAGES}.txt", lambda d: b"\xff\x00" + d), "images.txt", "restore"),
    "a point at infinity": (edit(f"{POINTS3D}.txt", lambda d: d + b"9 inf 0 0 1 2 3 0.5\n"), "points3D.txt", "restore"),
}
SPOILT = [pytest.param(write_binary, *case, id=name) for name, case in BINARY.items()]
SPOILT += [pytest.param(write_text, *case, id=f"text: {name}") for name, case in TEXT.items()]


@pytest.mark.parametrize(("write", "spoil", "name", "remedy"), SPOILT)
def test_bad_input_is_one_line_with_file_and_remedy(tmp_path, sweep, write, spoil, name, remedy):
    folder = sequence(tmp_path, sweep, write)
    spoil(folder)
    with pytest.raises(DataError) as error:
        colmap.load(folder, AS_IS)
    message = str(error.value)
    assert str(folder) in message and name in message and remedy in message
    assert "\n" not in message


def test_a_camera_of_fewer_images(tmp_path, rig):
    folder = rig_folder(tmp_path, rig, placed=1)
    (folder / "images/cam01/0003.png").unlink()
    with pytest.raises(DataError, match=r"cam01: 2 images, but .*cam00 has 3; .* the same number"):
        colmap.load(folder, AS_IS)

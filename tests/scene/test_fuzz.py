"""Files with anything in them: a scene that is sound, or one line that says what to do. Never anything else."""

import copy
import json
import math
import os
import pickle
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from msth_taichi.config import DataConfig
from msth_taichi.errors import ConfigError, DataError
from msth_taichi.scene.scene import Scene, load_scene
from tests.scene.captures import CAPTURES
from tests.scene.formats import test_colmap
from tests.scene.rig import AS_IS, assert_finite_rays, room_sweep

SECONDS = 5
"""In which every example has to end; it takes milliseconds."""

CONFIGS = [DataConfig(), AS_IS, DataConfig(downscale=2, num_frames=1)]

FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.remove", "subprocess.Popen"}
"""Events that reading files never causes. Python calls them audit events."""

_watched: list[str] | None = None


def _watch(event: str, arguments: tuple) -> None:
    if _watched is None:
        return
    written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if written or event in FORBIDDEN or event.startswith("socket."):
        _watched.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_watch)


class Hang(BaseException):
    """Not an Exception, which readers may catch."""


@contextmanager
def watched() -> Iterator[None]:
    """The block ends in time, runs nothing, writes nothing and connects to nothing."""
    global _watched

    def stop(*_: object) -> None:
        raise Hang(f"not finished after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    _watched = []
    try:
        yield
        assert not _watched
    finally:
        _watched = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def assert_sound_or_refused(folder: Path, config: DataConfig) -> None:
    """A scene that is sound and whose frames can be read, or an error of one line that names a path or a setting."""
    with watched():
        try:
            scene = load_scene(folder, config)
            frames = {split: list(images.read()) for split, images in scene.splits.items()}
        except (DataError, ConfigError) as error:
            message = str(error)
            assert message.isprintable(), message
            assert any(place in message for place in (str(folder), "/dev/zero", "data.")), message
            return
    assert_sound(scene, frames)


def assert_sound(scene: Scene, frames: dict[str, list[np.ndarray]]) -> None:
    cameras = scene.cameras
    rotation = cameras.camera_to_world[:, :, :3]
    assert cameras.camera_to_world.isfinite().all() and cameras.distortion.isfinite().all()
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3), atol=3e-3) and (torch.linalg.det(rotation) > 0).all()
    assert cameras.intrinsics.isfinite().all() and (cameras.intrinsics[:, :2] > 0).all()
    assert_finite_rays(scene)
    assert all(name.isprintable() for name in cameras.names) and len(set(cameras.names)) == len(cameras)
    assert math.isfinite(scene.fps) and scene.fps > 0
    if scene.bounds:
        near, far = scene.bounds
        assert 0 <= near < far < math.inf
    assert len(scene.images("train")) > 0
    for split, images in scene.splits.items():
        assert ((images.time >= 0) & (images.time <= 1)).all()
        assert ((images.frame >= 0) & (images.frame < scene.num_frames)).all()
        assert len(images) == len(frames[split])
        for camera, frame in zip(images.camera.tolist(), frames[split], strict=True):
            width, height = cameras.size(camera)
            assert frame.dtype == np.uint8 and frame.shape == (height, width, images.channels)


@contextmanager
def holding(file: Path, content: bytes) -> Iterator[None]:
    """The file has this content within the block."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


# ---- mutations


HUGE, ENDLESS, DEEP = "#huge", "#endless", "#deep"
LITERALS = {HUGE: "1" + "0" * 400, ENDLESS: "9" * 5000, DEEP: "[" * 100_000 + "]" * 100_000}
"""What json can hold and `json.dumps` does not write."""

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 0.5, -0.0, 2**31, 2**63, -(2**64), 1e19, 1e29, 1e38, 1e308, -1e308, 1e-30, 5e-324]),
    st.sampled_from([math.nan, math.inf, -math.inf, HUGE]),
    st.floats(),
    st.integers(),
)

HOSTILE = st.one_of(
    NUMBERS,
    st.sampled_from(
        [None, True, False, "", "x", "a\nb", "\u2028", "\ud800", "\0", "\x1b[2J", "..", "/dev/zero", "7", "nan"]
    ),
    st.sampled_from([[], {}, [[]], [{}], [None], [1.0] * 17, [[0.0] * 4] * 4, {"frames": []}, {"x": {"y": [1]}}]),
    st.sampled_from([ENDLESS, DEEP]),
    st.text(max_size=6),
)


@st.composite
def spoilt_json(draw: st.DrawFn, content: bytes) -> bytes:
    if draw(st.integers(0, 7)) == 7:
        return draw(spoilt_bytes(content))
    box = [json.loads(content)]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        parent, key = _place(draw, box)
        action = draw(st.sampled_from(["replace"] * 8 + ["drop", "wrap", "scale", "swap", "repeat"]))
        value = parent[key]
        if action == "drop" and parent is not box:
            del parent[key]
        elif action == "wrap":
            parent[key] = draw(st.sampled_from([[value], [value, value], {"x": value}]))
        elif action == "scale" and isinstance(value, int | float):
            parent[key] = value * draw(st.sampled_from([-1, 0, 1e-3, 0.5, 2, 1e3]))
        elif action == "swap":
            other, place = _place(draw, box)
            parent[key], other[place] = json.loads(json.dumps([other[place], value]))
        elif action == "repeat" and isinstance(parent, list) and parent is not box:
            parent.append(value)
        else:
            alike = isinstance(value, int | float) and draw(st.booleans())
            parent[key] = copy.deepcopy(draw(NUMBERS if alike else HOSTILE))
    text = json.dumps(box[0])
    for name, literal in LITERALS.items():
        text = text.replace(f'"{name}"', literal)
    return text.encode()


def _place(draw: st.DrawFn, box: list) -> tuple[Any, Any]:
    """A container within `box` and one of its keys; seldom a container itself."""
    parent, key = box, 0
    while isinstance(parent[key], list | dict) and parent[key] and draw(st.integers(0, 11)) < 11:
        parent = parent[key]
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        key = draw(st.sampled_from(keys))
    return parent, key


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes, header: int = 0) -> bytes:
    """Bits flipped, bytes replaced, parts cut out, doubled or cut off; a third of them among the first `header`."""
    data = bytearray(content)
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        size = min(header, len(data)) if header and draw(st.integers(0, 2)) == 2 else len(data)
        at = draw(st.integers(0, max(size - 1, 0)))
        action = draw(st.sampled_from(["bit", "byte", "word"] * 3 + ["remove", "double", "truncate"]))
        length = draw(st.sampled_from([1, 2, 4, 8, 64]))
        if action == "bit" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif action == "word":
            word = draw(st.sampled_from([b"\0", b"\xff", b"\x7f\xff", b"\x80\0\0\0"]))
            data[at : at + length] = (word * length)[:length]
        elif action == "remove":
            del data[at : at + length]
        elif action == "double":
            data[at:at] = data[at : at + length]
        elif action == "truncate":
            del data[at:]
    return bytes(data)


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def examples(name: str, count: int) -> Callable:
    """Settings for `count` examples, the same in every run, others for every name."""

    def decorate(run: Callable) -> Callable:
        quiet = list(HealthCheck)
        chosen = settings(
            max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=quiet
        )
        return seed(zlib.crc32(name.encode()))(chosen(run))

    return decorate


# ---- folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in CAPTURES}
    for name, folder in made.items():
        CAPTURES[name](folder)
    made["colmap text"] = tmp_path_factory.mktemp("colmap_text")
    test_colmap.sequence(made["colmap text"], room_sweep(test_colmap.COUNT, 16, 12), test_colmap.write_text)
    return made


def files(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in suffixes)


JSON = [name for name in CAPTURES if name not in ("n3v", "technicolor", "colmap")]
VIDEOS = ["n3v", "immersive", "campus", "multiview"]
TABLES = ["technicolor", "colmap", "colmap text"]


def test_folders_are_sound(folders):
    for folder in folders.values():
        for config in CONFIGS:
            with watched():
                scene = load_scene(folder, config)
            assert_sound(scene, {split: list(images.read()) for split, images in scene.splits.items()})


@pytest.mark.parametrize("name", JSON)
def test_json(folders, name):
    @examples(name, 120)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files(folders[name], ".json")))
        with holding(file, data.draw(spoilt_json(file.read_bytes()))):
            assert_sound_or_refused(folders[name], data.draw(st.sampled_from(CONFIGS)))

    run()


def test_npy(folders):
    file = folders["n3v"] / "poses_bounds.npy"

    @examples("npy", 500)
    @given(spoilt_bytes(file.read_bytes(), header=128), st.sampled_from(CONFIGS))
    def run(content: bytes, config: DataConfig) -> None:
        with holding(file, content):
            assert_sound_or_refused(folders["n3v"], config)

    run()


def test_npy_of_objects(folders, tmp_path):
    file, marker = folders["n3v"] / "poses_bounds.npy", tmp_path / "ran"
    rows = np.load(file).astype(object)
    rows[0, 0] = Touch(marker)
    np.save(tmp_path / "objects.npy", rows, allow_pickle=True)
    content = (tmp_path / "objects.npy").read_bytes()

    @examples("objects", 100)
    @given(st.one_of(st.just(content), spoilt_bytes(content), st.just(pickle.dumps(Touch(marker)))))
    def run(content: bytes) -> None:
        with holding(file, content), pytest.raises(DataError):
            assert_refused(folders["n3v"])

    run()
    assert not marker.exists()


def assert_refused(folder: Path) -> None:
    with watched():
        load_scene(folder)


@pytest.mark.parametrize("name", VIDEOS)
def test_mp4(folders, name):
    @examples(name, 150)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files(folders[name], ".mp4")))
        with holding(file, data.draw(spoilt_bytes(file.read_bytes()))):
            assert_sound_or_refused(folders[name], data.draw(st.sampled_from(CONFIGS)))

    run()


@pytest.mark.parametrize("name", TABLES)
def test_tables(folders, name):
    @examples(name, 100)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files(folders[name], ".txt", ".bin")))
        with holding(file, data.draw(spoilt_bytes(file.read_bytes(), header=300))):
            assert_sound_or_refused(folders[name], data.draw(st.sampled_from(CONFIGS)))

    run()


def test_images(folders):
    @examples("images", 100)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files(folders["dnerf"], ".png")))
        with holding(file, data.draw(spoilt_bytes(file.read_bytes(), header=60))):
            assert_sound_or_refused(folders["dnerf"], data.draw(st.sampled_from(CONFIGS)))

    run()

"""Frames in files: read back as they were, and known when damaged."""

import sys

import numpy as np
import pytest
from PIL import Image

from msth_taichi.errors import RunError
from msth_taichi.rendering.frame_files import is_whole, load_frame, require_exr, save_frame

METADATA = {"output": "depth", "limits": [0.1, 2.0], "job": "a"}


def frame(suffix: str, channels: int) -> np.ndarray:
    values = np.random.default_rng(channels).random((5, 7, channels), np.float32)
    if suffix == ".png":
        return (values * 255).astype(np.uint8)
    values[0, 0] = np.nan
    return values[..., 0] if channels == 1 else values


def exr_or_skip(suffix: str) -> None:
    if suffix == ".exr":
        pytest.importorskip("OpenEXR")


CASES = [(".png", 3), (".png", 4), (".npz", 1), (".npz", 3), (".npz", 4), (".exr", 1), (".exr", 3), (".exr", 4)]


@pytest.mark.parametrize(("suffix", "channels"), CASES)
def test_frames_are_read_back_exactly(tmp_path, suffix, channels):
    exr_or_skip(suffix)
    path, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_frame(path, frame(suffix, channels), METADATA)
    found, metadata = load_frame(path)
    np.testing.assert_array_equal(found, frame(suffix, channels))
    assert found.dtype == frame(suffix, channels).dtype and metadata == METADATA
    save_frame(again, found, metadata)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".npz", ".exr"])
def test_damaged_and_foreign_frames_are_known(tmp_path, suffix):
    exr_or_skip(suffix)
    path = tmp_path / f"a{suffix}"
    save_frame(path, frame(suffix, 3), METADATA)
    assert is_whole(path, (7, 5), "a")
    assert not is_whole(path, (5, 7), "a") and not is_whole(path, (7, 5), "b")
    content = path.read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], content[:10], b""):
        path.write_bytes(damaged)
        assert not is_whole(path, (7, 5), "a")
    assert not is_whole(tmp_path / "missing.png", (7, 5), "a")


def test_no_frame_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / "a.png"
    save_frame(path, frame(".png", 3), METADATA)
    assert is_whole(path, (7, 5), "a")
    np.testing.assert_array_equal(load_frame(path)[0], frame(".png", 3))


def test_numbers_open_without_this_package(tmp_path):
    save_frame(tmp_path / "a.npz", frame(".npz", 1), METADATA)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["depth"], frame(".npz", 1))


def test_exr_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(RunError, match=r"pip install 'msth_taichi\[exr\]'"):
        require_exr()

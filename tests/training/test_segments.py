"""Which frames a segment has, and who shows a moment."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from msth_taichi.config import CamerasConfig
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.segments import (
    Cut,
    Segment,
    chain_of,
    cut_frames,
    frame_times,
    is_chain,
    part_of,
    read_cut,
    require_same_cameras_throughout,
    segment_path,
    write_cut,
)


def times(count: int) -> np.ndarray:
    return np.arange(count) / count


@pytest.mark.parametrize(("total", "most"), [(1200, 300), (301, 300), (599, 300), (5, 2), (7, 2), (24, 8), (9, 5)])
def test_segments_cover_all_frames_and_only_neighbours_overlap(total, most):
    segments = cut_frames(times(total), most).segments
    assert len(segments) == -(-total // most)
    assert segments[0].first == 0 and segments[-1].first + segments[-1].frames == total
    for before, after in pairwise(segments):
        assert 0 < after.first - before.first <= most
        shared = before.first + before.frames - after.first
        assert shared == {1200: 10, 301: 10, 599: 10, 24: 4}.get(total, 2) or before.first + before.frames == total
    for first, third in zip(segments, segments[2:], strict=False):
        assert first.first + first.frames <= third.first + 1, "three segments show one moment"


def test_a_short_video_is_one_segment():
    (only,) = cut_frames(times(300), 300).segments
    assert only == Segment(0, 300, 0.0, 299 / 300, 1.0)
    with pytest.raises(ConfigError, match="--segment-frames 1: out of range"):
        cut_frames(times(4), 1)


@pytest.mark.parametrize("moments", [times(40), np.linspace(0, 1, 40), np.sort(np.random.default_rng(0).random(40))])
def test_shares_pass_evenly_from_one_segment_to_the_next(moments):
    cut = cut_frames(moments, 10)
    shares = np.zeros((1001, 4))
    for row, time in enumerate(np.linspace(0, 1, 1001)):
        for number, weight in cut.weights(float(time)):
            shares[row, number] = weight
    assert np.allclose(shares.sum(1), 1)
    assert ((shares > 0).sum(1) <= 2).all()
    for number, (before, after) in enumerate(pairwise(cut.segments)):
        assert cut.weights(after.start)[0] == (number, 1.0), "its first frame is the other's still"
        assert cut.weights(before.last) == [(number + 1, 1.0)]
        middle = cut.weights((after.start + before.last) / 2)
        assert middle == [(number, pytest.approx(0.5)), (number + 1, pytest.approx(0.5))]


def test_every_frame_has_its_time_in_its_segment():
    """Local times are those that a scene of these frames alone would have; a blend looks up the trained ones."""
    scene = load_scene("synthetic:cameras=3,test_cameras=1,frames=9,width=8,height=6")
    cut = cut_frames(frame_times(scene), 4)
    whole = scene.images("train")
    seen = []
    for segment in cut.segments:
        part = part_of(scene, segment)
        images = part.images("train")
        assert part.num_frames == segment.frames and part.cameras is scene.cameras
        assert torch.allclose(images.time, images.frame / segment.frames)
        for key, time in zip(images.keys, images.time.tolist(), strict=True):
            (row,) = np.flatnonzero(whole.keys == key)
            assert segment.local(float(whole.time[row])) == pytest.approx(time, abs=1e-6)
        seen.append(set(images.keys))
    assert set().union(*seen) == set(whole.keys)
    assert len(part_of(scene, cut.segments[1]).images("test")) == cut.segments[1].frames


def test_frames_that_a_split_lacks():
    scene = load_scene("synthetic:cameras=3,test_cameras=1,frames=8,width=8,height=6")
    cut = cut_frames(frame_times(scene), 2)
    scene.splits["test"] = scene.images("test").select([0])
    assert "test" in part_of(scene, cut.segments[0]).splits and "test" not in part_of(scene, cut.segments[3]).splits
    assert np.allclose(frame_times(scene), times(8))
    train = scene.images("train")
    scene.splits["train"] = train.select(((train.frame > 3) | (train.camera == 0)).nonzero()[:, 0])
    with pytest.raises(ConfigError, match=r"seen by different cameras.*cameras\.colors=none"):
        require_same_cameras_throughout(scene, cut, CamerasConfig(colors="affine"))
    require_same_cameras_throughout(scene, cut, CamerasConfig())
    scene.splits["train"] = train.select((train.frame > 3).nonzero()[:, 0])
    with pytest.raises(ConfigError, match="frames 0 to 3 have no training image"):
        part_of(scene, cut.segments[0])


def test_the_record_comes_back_and_damage_is_told(tmp_path):
    assert not is_chain(tmp_path)
    cut = cut_frames(times(20), 6, parallel=True)
    write_cut(tmp_path, cut)
    assert is_chain(tmp_path) and read_cut(tmp_path) == cut
    assert chain_of(segment_path(tmp_path, 1)) == tmp_path.absolute() and chain_of(tmp_path) is None
    values = json.loads((tmp_path / "segments.json").read_text())
    for spoilt in ("", "[]", json.dumps({**values, "segments": []}), json.dumps({"segments": [{"first": 0}]})):
        (tmp_path / "segments.json").write_text(spoilt)
        with pytest.raises(RunError, match=r"segments\.json: missing or damaged"):
            read_cut(tmp_path)
    assert Cut((Segment(0, 4, 0.0, 0.75, 1.0),)).weights(0.3) == [(0, 1.0)]

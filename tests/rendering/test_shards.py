"""Which frames a process renders, and on which GPU."""

import pytest

from msth_taichi.errors import RunError
from msth_taichi.rendering.shards import Shard, parse_shard, torchrun_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_share_all_frames(count):
    frames = [k for index in range(count) for k in Shard(index, count).frames(10)]
    assert sorted(frames) == list(range(10))


def test_a_shard_is_read():
    assert parse_shard("0/1") == Shard() and parse_shard("3/4") == Shard(3, 4)


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b", "1/0", "", "1/2/3", "0.5/2"])
def test_what_is_no_shard_is_named(text):
    with pytest.raises(RunError, match=rf"--shard {text}:.*0/"):
        parse_shard(text)


def test_torchrun_gives_each_local_process_its_gpu():
    rank = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert torchrun_shard(rank) == Shard(5, 8) and rank["CUDA_VISIBLE_DEVICES"] == "1"
    none = {**rank, "CUDA_VISIBLE_DEVICES": ""}
    assert torchrun_shard(none) == Shard(5, 8) and none["CUDA_VISIBLE_DEVICES"] == "", "GPUs are forbidden"
    chosen = {**rank, "CUDA_VISIBLE_DEVICES": "4,6"}
    assert torchrun_shard(chosen) == Shard(5, 8) and chosen["CUDA_VISIBLE_DEVICES"] == "6"
    alone = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert torchrun_shard(alone) == Shard(0, 2) and "CUDA_VISIBLE_DEVICES" not in alone
    assert torchrun_shard({}) == Shard()

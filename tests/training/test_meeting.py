"""How processes find each other again after a restart, and what a restarted one may take over."""

import datetime
import threading

import pytest
import torch
from torch.distributed import TCPStore

from msth_taichi.errors import ConfigError, DeviceError, RunError
from msth_taichi.training import meeting as module
from msth_taichi.training import team
from msth_taichi.training.checkpoint import checkpoint_steps
from msth_taichi.training.meeting import Meeting, first_says, has_written, meeting, name_attempt, note_writing
from msth_taichi.training.start import start_training
from msth_taichi.training.team import Team, join
from tests.training.teamwork import SCENE
from tests.training.test_team import free_port

SECONDS = datetime.timedelta(seconds=10)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, timeout=SECONDS, wait_for_workers=False)


@pytest.fixture
def launched(monkeypatch):
    """This process as torchrun starts it again after a failure."""
    values = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in (values | {"TORCHELASTIC_RESTART_COUNT": "1"}).items():
        monkeypatch.setenv(name, value)
    meeting.cache_clear()
    yield
    meeting.cache_clear()


def test_every_attempt_has_a_name_of_its_own_whatever_the_dead_have_said(store):
    def attempt() -> list[str]:
        names = [""] * 3

        def ask(rank: int) -> None:
            other = TCPStore("127.0.0.1", store.port, timeout=SECONDS, wait_for_workers=False)
            names[rank] = name_attempt(other, rank, 3, SECONDS)

        threads = [threading.Thread(target=ask, args=(rank,)) for rank in (2, 0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return names

    first, second = attempt(), attempt()
    assert len(set(first)) == len(set(second)) == 1 and first[0] and first[0] != second[0]


def test_processes_that_do_not_come_are_named(store):
    with pytest.raises(RunError, match=r"of 3 processes, 1, 2 did not come; start torchrun on all machines"):
        name_attempt(store, 0, 3, datetime.timedelta(0))


def test_a_process_alone_meets_nobody():
    assert meeting() is None and not has_written() and first_says("what", "this") == "this"


def test_a_restarted_process_takes_over_what_its_launch_wrote_and_nothing_else(launched, tiny_run_copy):
    with pytest.raises(RunError, match="already exists; pass --overwrite"):
        start_training(SCENE, tiny_run_copy, preset="demo", arch="cpu")
    reached = checkpoint_steps(tiny_run_copy)[-1]
    note_writing()
    assert has_written()
    assert start_training(SCENE, tiny_run_copy, preset="demo", arch="cpu", overwrite=True).step == reached


def test_processes_on_different_devices_are_told(monkeypatch, store):
    monkeypatch.setattr(team, "meeting", lambda: Meeting(store, store, 3, 4))
    monkeypatch.setattr(module, "meeting", lambda: Meeting(store, store, 3, 4))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    store.set("device", "cuda")
    with pytest.raises(DeviceError, match=r"process 3 runs on cpu, unlike .* GPU for each of 4 .* Lower --nproc-per"):
        join(torch.device("cpu"))


def test_what_goes_wrong_between_processes_is_told_in_one_line(monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("Connection closed\nby peer")

    monkeypatch.setattr(team.dist, "all_reduce", broken)
    with pytest.raises(RunError, match=r"another process .* says above why \(Connection closed by peer\)"):
        Team(1, 2).any(True)


def test_what_to_resume_is_not_cut_anew(tiny_run_copy):
    with pytest.raises(ConfigError, match="leave --parallel-segments out"):
        start_training(SCENE, tiny_run_copy, resume=True, parallel_segments=True)

"""What a process may use: its share of the machine, and no more than its container has."""

import os

import pytest

from msth_taichi import machine


def test_processes_of_one_machine_share_it(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_CONTAINER", tmp_path)
    monkeypatch.setattr(machine, "_free_on_machine", lambda: 8e9)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    assert (machine.usable_cores(), machine.free_memory()) == (6, 8e9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (machine.usable_cores(), machine.free_memory()) == (1, 2e9)


@pytest.mark.parametrize(("most", "free"), [("max", 8e9), ("5000000000", 3e9)])
def test_a_container_may_have_less(monkeypatch, tmp_path, most, free):
    monkeypatch.setattr(machine, "_CONTAINER", tmp_path)
    monkeypatch.setattr(machine, "_free_on_machine", lambda: 8e9)
    (tmp_path / "memory.max").write_text(most + "\n")
    (tmp_path / "memory.current").write_text("3000000000\n")
    (tmp_path / "memory.stat").write_text("anon 1900000000\ninactive_file 1000000000\n")
    assert machine.free_memory() == free


def test_the_machine_says_what_is_free():
    assert 1e6 < machine._free_on_machine() < 1e15

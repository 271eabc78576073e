"""What `msth view` says before there is anything to see."""

import sys

import pytest

from msth_taichi.cli import main
from msth_taichi.errors import RunError
from msth_taichi.viewer.live import LiveViewer


@pytest.fixture
def without_viser(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "viser"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "viser", None)


def refused(monkeypatch, capsys, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["msth", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1, error
    return error


def test_without_the_extra_it_says_how_to_install_it(without_viser, monkeypatch, capsys, tiny_run, tmp_path):
    line = refused(monkeypatch, capsys, "view", tiny_run.path)
    assert "pip install 'msth_taichi[viewer]'" in line
    with pytest.raises(RunError, match="pip install"):
        LiveViewer(tmp_path)


def test_what_is_no_run_is_told(monkeypatch, capsys, tmp_path):
    pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")
    assert "not a run folder" in refused(monkeypatch, capsys, "view", tmp_path)


def test_a_data_set_that_is_asked_for_has_to_be_there(monkeypatch, capsys, tiny_run, tmp_path):
    pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")
    line = refused(monkeypatch, capsys, "view", tiny_run.path, "--data", tmp_path / "none", "--port", 0)
    assert "no such data set" in line

"""Files and folders appear whole or not at all, and a failure keeps what was there."""

from pathlib import Path

import pytest

from msth_taichi.errors import RunError
from msth_taichi.files import new_folder, replacing, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "video.mp4"
    with replacing(path) as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == path.parent
        temporary.write_text("first")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second" and names(path.parent) == ["video.mp4"]


def test_a_file_stays_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]


def test_nothing_is_left_of_a_file_that_failed_before_it_was_opened(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_text_and_json_are_read_back(tmp_path):
    write_text(tmp_path / "a.txt", "one\n")
    write_json(tmp_path / "a.json", {"step": 3, "names": ["a"]})
    assert (tmp_path / "a.txt").read_text() == "one\n"
    assert (tmp_path / "a.json").read_text() == '{\n "step": 3,\n "names": [\n  "a"\n ]\n}\n'
    assert names(tmp_path) == ["a.json", "a.txt"]


def test_values_that_are_not_json_keep_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"step": 3})
    before = path.read_text()
    with pytest.raises(TypeError):
        write_json(path, {"step": object()})
    assert path.read_text() == before and names(tmp_path) == ["a.json"]


def test_paths_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(RunError, match="is a folder; give the name of a file"):
        write_text(tmp_path, "text")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/a.txt: cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(RunError, match=r"file/folder: cannot be written"), new_folder(tmp_path / "file" / "folder"):
        pass
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "in the way"


def test_a_refused_write_names_the_file_and_keeps_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RunError, match=r"a.txt: cannot be written \(No space left.*free the disk"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "new" / "step-1"
    with new_folder(path) as temporary:
        (temporary / "a").write_text("first")
        assert not path.exists() and temporary.parent == path.parent
    with new_folder(path) as temporary:
        (temporary / "b").write_text("second")
        assert names(path) == ["a"]
    assert names(path) == ["b"] and names(path.parent) == ["step-1"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_folder_stays_when_the_block_fails(tmp_path, error):
    path = tmp_path / "step-1"
    path.mkdir()
    (path / "a").write_text("before")
    expected = RunError if isinstance(error, OSError) else error
    with pytest.raises(expected), new_folder(path) as temporary:
        (temporary / "a").write_text("half")
        raise error
    assert names(tmp_path) == ["step-1"] and (path / "a").read_text() == "before"

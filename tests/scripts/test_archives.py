"""Archives from strangers: what is unpacked, and what is refused."""

import io
import shutil
import stat
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from msth_taichi.errors import DataError, RunError

FILES = {"lego/transforms_train.json": b"{}", "lego/train/r_000.png": b"picture" * 99, "lego/train/r_001.png": b""}


def zipped(path, files, **settings):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def unpack():
    from archives import unpack

    return unpack


def test_wrapping_folders_are_left_out(unpack, tmp_path):
    files = {f"data/{name}": content for name, content in FILES.items()} | {
        "__MACOSX/data/._x": b"",
        "data/.DS_Store": b"",
    }
    assert unpack([zipped(tmp_path / "a.zip", files)], tmp_path / "lego") == 3
    assert contents(tmp_path / "lego") == {name.removeprefix("lego/"): content for name, content in FILES.items()}


def test_one_scene_of_several(unpack, tmp_path):
    files = {"data/hook/a.png": b"1", "data/hook/train/b.png": b"2", "data/lego/a.png": b"3"}
    assert unpack([zipped(tmp_path / "a.zip", files)], tmp_path / "hook", inside="hook") == 2
    assert contents(tmp_path / "hook") == {"a.png": b"1", "train/b.png": b"2"}
    with pytest.raises(DataError, match="no folder 'mutant'"):
        unpack([tmp_path / "a.zip"], tmp_path / "mutant", inside="mutant")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar(unpack, tmp_path, mode):
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert unpack([tmp_path / "a.tar"], tmp_path / "out") == 3
    assert contents(tmp_path / "out")["train/r_000.png"] == b"picture" * 99


@pytest.mark.skipif(shutil.which("zip") is None, reason="writes volumes with Info-ZIP")
def test_zip_in_volumes(unpack, tmp_path):
    source = tmp_path / "flame"
    source.mkdir()
    generator = np.random.default_rng(0)
    for index in range(7):
        (source / f"cam{index:02d}.mp4").write_bytes(generator.bytes(40_000))
    subprocess.run(["zip", "-q", "-r", "-s", "64k", "split.zip", "flame"], cwd=tmp_path, check=True)
    volumes = [*sorted(tmp_path.glob("split.z[0-9]*")), tmp_path / "split.zip"]
    assert len(volumes) > 3
    assert unpack(volumes, tmp_path / "out") == 7
    assert contents(tmp_path / "out") == contents(source)
    with pytest.raises(DataError, match="damaged"):
        unpack(volumes[1:], tmp_path / "other")


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:/evil", "C:\\evil", "..\\evil", "\\\\host\\share\\evil"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_outside(unpack, tmp_path, kind, name):
    path = tmp_path / "in" / "a.archive"
    path.parent.mkdir()
    if kind == "zip":
        zipped(path, {"good": b"1", name: b"2"})
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("good"))
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack([path], tmp_path / "in" / "out")
    assert [entry.name for entry in tmp_path.rglob("*") if entry.is_file()] == ["a.archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(unpack, tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="link or device"):
        unpack([tmp_path / "a.tar"], tmp_path / "out")


def test_link_in_zip(unpack, tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_damaged_zip_leaves_nothing_behind(unpack, tmp_path, place):
    path = zipped(tmp_path / "a.zip", {f"x/{i}": np.random.default_rng(i).bytes(5000) for i in range(4)})
    spoiled = bytearray(path.read_bytes())
    spoiled[int(len(spoiled) * place)] ^= 255
    path.write_bytes(spoiled)
    with pytest.raises(DataError, match="damaged") as caught:
        unpack([path], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_not_an_archive(unpack, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>not here")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")


def test_too_little_room(unpack, tmp_path, monkeypatch):
    import archives

    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RunError, match="693 bytes are needed, but 1 bytes are free"):
        unpack([zipped(tmp_path / "a.zip", {"x/a": b"picture" * 99})], tmp_path / "out")


def test_replaces_a_folder_only_when_all_is_there(unpack, tmp_path):
    old = tmp_path / "out"
    old.mkdir()
    (old / "old").write_bytes(b"1")
    with pytest.raises(DataError):
        unpack([zipped(tmp_path / "bad.zip", {"../evil": b""})], old)
    assert contents(old) == {"old": b"1"}
    unpack([zipped(tmp_path / "a.zip", {"x/new": b"2"})], old)
    assert contents(old) == {"new": b"2"}

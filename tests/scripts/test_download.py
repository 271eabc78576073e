"""`download.py` from its command line, with archives from a server on this machine."""

import io
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from msth_taichi.config import preset_names
from tests.scripts.conftest import SCRIPTS


def archive(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return buffer.getvalue()


STEAK = archive({"flame_steak/poses_bounds.npy": b"poses", "flame_steak/cam00.mp4": b"video" * 5000})


@pytest.fixture
def download():
    import download

    return download


def test_scene_is_unpacked_and_the_next_command_named(server, call, download, tmp_path):
    file = server.serve("flame_steak.zip", STEAK, drops=[1000])
    arguments = ("n3v", "--scene", "flame_steak", "--output", tmp_path, "--url", server.url("flame_steak.zip"))
    code, out, _ = call(download.download, *arguments)
    folder = tmp_path / "flame_steak"
    assert code == 0 and f"{folder}: 2 files" in out and f"msth train {folder} --preset n3v" in out
    assert (folder / "cam00.mp4").read_bytes() == b"video" * 5000
    assert [entry.name for entry in tmp_path.iterdir()] == ["flame_steak"]

    requests = len(file.requests)
    code, out, _ = call(download.download, *arguments)
    assert code == 0 and "there already" in out and len(file.requests) == requests

    (folder / "cam00.mp4").unlink()
    call(download.download, *arguments, "--overwrite")
    assert (folder / "cam00.mp4").exists()


def test_archive_of_all_scenes_is_kept_for_the_next(server, call, download, tmp_path):
    file = server.serve(
        "data.zip", archive({f"data/{scene}/transforms_train.json": b"{}" for scene in ("hook", "trex")})
    )
    for scene in ("hook", "trex"):
        code, _, err = call(
            download.download, "dnerf", "--scene", scene, "--output", tmp_path, "--url", server.url("data.zip?dl=1")
        )
        assert code == 0, err
        assert (tmp_path / scene / "transforms_train.json").is_file()
    assert len(file.requests) == 1


def test_missing_file_is_one_line_with_the_page(server, call, download, tmp_path):
    code, _, err = call(
        download.download, "campus", "--scene", "01_talk", "--output", tmp_path, "--url", server.url("gone.zip")
    )
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert "404" in err and "huggingface.co" in err and "--url" in err


def test_damaged_archive_is_one_line(server, call, download, tmp_path):
    server.serve("a.zip", STEAK[:-30])
    code, _, err = call(
        download.download, "n3v", "--scene", "flame_steak", "--output", tmp_path, "--url", server.url("a.zip")
    )
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "a.zip" in err
    assert not (tmp_path / "flame_steak").exists()


def test_too_little_room_is_said_before_the_first_byte(server, call, download, tmp_path, monkeypatch):
    import archives

    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    file = server.serve("a.zip", STEAK)
    code, _, err = call(
        download.download, "immersive", "--scene", "02_Flames", "--output", tmp_path, "--url", server.url("a.zip")
    )
    assert code == 2 and "5.47 GB are needed" in err and not file.requests


@pytest.mark.parametrize(
    ("dataset", "given", "name"),
    [
        ("hypernerf", "chicken", "vrig_chicken"),
        ("n3v", "flame_salmon", "flame_salmon_1"),
        ("immersive", "Cave", "12_Cave"),
    ],
)
def test_short_names(download, dataset, given, name):
    kind = download.Dataset(dataset)
    assert download._known_scene(kind, download.SOURCES[kind], given) == name


@pytest.mark.parametrize("scene", [[], ["--scene", "kitchen"]])
def test_unknown_scene_lists_the_known_ones(call, download, scene):
    code, _, err = call(download.download, "n3v", *scene)
    assert code == 2 and "coffee_martini" in err and err.count("\n") == 1


def test_list(call, download):
    for dataset in download.Dataset:
        code, out, _ = call(download.download, dataset.value, "--list")
        assert code == 0 and download.SOURCES[dataset].page in out


def test_table_is_sound(download):
    for source in download.SOURCES.values():
        assert source.preset in preset_names()
        for scene in source.scenes:
            urls = download.archive_urls(source, scene)
            assert all(url.startswith("https://") and "{" not in url for url in urls)
    assert len(download.archive_urls(download.SOURCES[download.Dataset.n3v], "flame_salmon_1")) == 4


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_process_is_gone_on_with(server, call, download, tmp_path, stop):
    file = server.serve("flame_steak.zip", STEAK, stall_after=5000)
    arguments = ["n3v", "--scene", "flame_steak", "--output", str(tmp_path), "--url", server.url("flame_steak.zip")]
    process = subprocess.Popen([sys.executable, SCRIPTS / "download.py", *arguments], stderr=subprocess.PIPE, text=True)
    part, deadline = tmp_path / "flame_steak.zip.part", time.monotonic() + 20
    while not (part.exists() and part.stat().st_size == 5000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, err = process.communicate(timeout=20)
    if stop == signal.SIGINT:
        assert process.returncode == 130 and err.splitlines()[-1].startswith("stopped") and "Traceback" not in err
    assert part.read_bytes() == STEAK[:5000]

    file.stall_after = None
    code, _, err = call(download.download, *arguments)
    assert code == 0 and file.requests[-1]["Range"] == "bytes=5000-", err
    assert (tmp_path / "flame_steak" / "cam00.mp4").read_bytes() == b"video" * 5000


def test_help_from_the_shell():
    result = subprocess.run([sys.executable, SCRIPTS / "download.py"], capture_output=True, text=True)
    assert result.returncode == 0 and "--scene" in result.stdout

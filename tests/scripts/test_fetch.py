"""Downloads from a server on this machine that breaks off, ignores ranges, and lies."""

import errno
import hashlib
import json

import numpy as np
import pytest

from msth_taichi.errors import DataError, RunError

CONTENT = np.random.default_rng(3).bytes(100_000)


@pytest.fixture
def get(server, tmp_path):
    """get(name, ...) -> path of the file fetched without pauses."""
    from fetch import fetch

    def run(name="scene.zip", **settings):
        return fetch(server.url(name), tmp_path / name, pause=0.0, timeout=5.0, **settings)

    return run


def partial(tmp_path, name="scene.zip"):
    path = tmp_path / (name + ".part")
    return path.read_bytes() if path.exists() else b""


def test_whole_file(server, get, tmp_path):
    server.serve("scene.zip", CONTENT)
    assert get().read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["scene.zip"]


def test_complete_file_is_not_asked_for_again(server, get):
    file = server.serve("scene.zip", CONTENT)
    get(), get()
    assert len(file.requests) == 1


def test_dropped_connections_are_gone_on_with(server, get):
    file = server.serve("scene.zip", CONTENT, drops=[30_000, 20_000, 1])
    assert get().read_bytes() == CONTENT
    assert [request.get("Range") for request in file.requests] == [None, "bytes=30000-", "bytes=50000-", "bytes=50001-"]
    assert {request["If-Range"] for request in file.requests[1:]} == {'"v1"'}


def test_lost_network_leaves_what_came_for_the_next_call(server, get, tmp_path):
    file = server.serve("scene.zip", CONTENT, drops=[40_000, 0, 0])
    with pytest.raises(RunError, match=r"kept in .*scene.zip.part") as caught:
        get(attempts=2)
    assert "\n" not in str(caught.value)
    assert partial(tmp_path) == CONTENT[:40_000] and not (tmp_path / "scene.zip").exists()
    file.drops.clear()
    assert get().read_bytes() == CONTENT
    assert file.requests[-1]["Range"] == "bytes=40000-"


def test_server_that_falls_silent(server, tmp_path):
    from fetch import fetch

    file = server.serve("scene.zip", CONTENT, stall_after=40_000)
    path = fetch(server.url("scene.zip"), tmp_path / "scene.zip", attempts=1, pause=0.0, timeout=0.3)
    assert path.read_bytes() == CONTENT
    assert [request.get("Range") for request in file.requests] == [None, "bytes=40000-", "bytes=80000-"]


def test_no_server_at_all(server, get):
    server.serve("scene.zip", CONTENT)
    server.stop()
    with pytest.raises(RunError, match=r"network is lost .*nothing has arrived"):
        get(attempts=2)


def test_server_that_ignores_ranges_sends_it_all_again(server, get):
    server.serve("scene.zip", CONTENT, ranges=False, drops=[30_000])
    assert get().read_bytes() == CONTENT


def test_server_that_ignores_ranges_and_always_drops_is_given_up(server, get):
    file = server.serve("scene.zip", CONTENT, ranges=False, drops=[30_000] * 50)
    with pytest.raises(RunError, match="30000 of 100000 bytes"):
        get(attempts=3)
    assert len(file.requests) < 10


def test_new_version_on_the_server_starts_from_its_first_byte(server, get, tmp_path):
    server.serve("scene.zip", CONTENT, drops=[40_000, 0])
    with pytest.raises(RunError):
        get(attempts=1)
    newer = CONTENT[::-1]
    server.serve("scene.zip", newer, etag='"v2"')
    assert get().read_bytes() == newer


def test_shorter_version_on_a_server_without_etags(server, get):
    server.serve("scene.zip", CONTENT, etag="", drops=[40_000, 0])
    with pytest.raises(RunError):
        get(attempts=1)
    server.serve("scene.zip", CONTENT[:1000][::-1], etag="")
    assert get().read_bytes() == CONTENT[:1000][::-1]


def test_resumes_on_a_server_without_etags(server, get):
    file = server.serve("scene.zip", CONTENT, etag="", drops=[40_000])
    assert get().read_bytes() == CONTENT
    assert "If-Range" not in file.requests[1] and file.requests[1]["Range"] == "bytes=40000-"


def test_announces_more_than_it_has_and_then_admits_it(server, get):
    server.serve("scene.zip", CONTENT, announced=150_000)
    assert get().read_bytes() == CONTENT


def test_announces_more_than_it_has_for_ever(server, get):
    file = server.serve("scene.zip", CONTENT, announced=150_000, ranges=False)
    with pytest.raises(RunError, match="of 150000 bytes"):
        get(attempts=3)
    assert len(file.requests) < 10


def test_announces_more_than_it_has_of_a_checked_file(server, get):
    file = server.serve("scene.zip", CONTENT, announced=150_000)
    file.headers["x-goog-hash"] = file.md5_header()
    file.content = CONTENT[:90_000]
    with pytest.raises(DataError, match="md5"):
        get()


def test_announces_less_than_it_sends_is_found_by_the_checksum(server, get, tmp_path):
    file = server.serve("scene.zip", CONTENT, announced=60_000)
    file.headers["x-goog-hash"] = file.md5_header()
    with pytest.raises(DataError, match=r"md5 is .* but the source says"):
        get()
    assert not list(tmp_path.iterdir()), "nothing of it can be trusted"


def test_length_unknown(server, get):
    server.serve("scene.zip", CONTENT, chunked=True, drops=[30_000])
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("code", [403, 404, 410])
def test_file_that_is_gone(server, get, code):
    file = server.serve("scene.zip", CONTENT, codes=[code] * 9)
    with pytest.raises(DataError, match=rf"answers {code} .*; see the page"):
        get(hint="see the page")
    assert len(file.requests) == 1


def test_busy_server_is_asked_again(server, get):
    server.serve("scene.zip", CONTENT, codes=[503, 429, 500])
    assert get().read_bytes() == CONTENT


def test_server_that_stays_busy(server, get):
    server.serve("scene.zip", CONTENT, codes=[503] * 9)
    with pytest.raises(RunError, match="503"):
        get(attempts=3)


def test_web_page_instead_of_the_file(server, get, tmp_path):
    server.serve("scene.zip", b"<html>please log in", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(DataError, match="a web page came"):
        get()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flaw", [0, 1])
def test_checksums_of_google_storage(server, get, flaw):
    file = server.serve("scene.zip", CONTENT)
    file.headers["x-goog-hash"] = file.md5_header()
    file.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ flaw])
    if flaw:
        with pytest.raises(DataError, match="damaged on the way"):
            get()
    else:
        assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("flaw", [0, 1])
def test_checksum_that_comes_with_a_redirect(server, get, flaw):
    digest = hashlib.sha256(CONTENT).hexdigest()
    content = CONTENT[:-1] + bytes([CONTENT[-1] ^ flaw])
    server.serve("scene.zip", content, redirect_headers={"X-Linked-Etag": f'"{digest}"'}, drops=[50_000])
    if flaw:
        with pytest.raises(DataError, match="sha256"):
            get()
    else:
        assert get().read_bytes() == CONTENT


def test_checksum_is_remembered_over_a_broken_download(server, get):
    file = server.serve("scene.zip", CONTENT, drops=[40_000, 0])
    file.headers["x-goog-hash"] = file.md5_header()
    with pytest.raises(RunError):
        get(attempts=1)
    file.headers.clear()
    file.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(DataError, match="md5"):
        get()


def test_full_disk(server, get, tmp_path, monkeypatch):
    import fetch

    server.serve("scene.zip", CONTENT)
    write = fetch._write

    def full(file, block):
        free = 25_000 - file.tell()
        write(file, block[:free])
        if len(block) > free:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_write", full)
    with pytest.raises(RunError, match=r"No space left on device.*25 kB are kept: free the disk") as caught:
        get()
    assert "\n" not in str(caught.value)
    assert partial(tmp_path) == CONTENT[:25_000]
    monkeypatch.undo()
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "[]", "{}", json.dumps({"url": 1, "validator": "", "total": None, "digest": []})])
def test_spoiled_note_starts_from_the_first_byte(server, get, tmp_path, note):
    (tmp_path / "scene.zip.part").write_bytes(b"something else")
    (tmp_path / "scene.zip.part.json").write_text(note)
    server.serve("scene.zip", CONTENT)
    assert get().read_bytes() == CONTENT


def test_not_a_url(tmp_path):
    from fetch import fetch

    with pytest.raises(DataError, match="not a URL"):
        fetch("scene.zip", tmp_path / "scene.zip")

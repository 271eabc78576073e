"""The server: who may listen where, what several clients see, and that no message does harm."""

import dataclasses
import http.client
import json
import socket
import subprocess
import sys

import pytest

from msth_taichi.errors import RunError

pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")

from msth_taichi.viewer.server import Server
from tests.viewer.talk import Talk, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the run."""
    return tmp_path_factory.mktemp("viewer") / "run"


@pytest.fixture(scope="module")
def opened(tiny_run, folder):
    server = Server("127.0.0.1", 0)
    server.open(dataclasses.replace(tiny_run, path=folder), tiny_run.scene, tiny_run.renderer)
    yield server
    server.close()


@pytest.fixture
def enter(opened):
    """enter() -> a client whose controls are there."""
    talks = []

    def make() -> Talk:
        talk = Talk(opened.viser.get_port())
        talks.append(talk)
        talk.look()
        until(lambda: "Save path" in talk.controls and talk.pictures(), opened.turn)
        return talk

    yield make
    for talk in talks:
        talk.close()
    until(lambda: not opened.clients())


def sharp(server, *talks) -> None:
    """Render until all have the whole of what they asked for."""
    until(lambda: all(talk.status() and "sharpening" not in talk.status() for talk in talks), server.turn)


def test_it_listens_on_this_machine_alone(opened):
    assert opened.address.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_told(opened):
    with pytest.raises(RunError, match=r"--port \d+: something else listens"):
        Server("127.0.0.1", opened.viser.get_port())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RunError, match="choose another --port"):
            Server("127.0.0.1", other.getsockname()[1])


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_none_is_told(host):
    with pytest.raises(RunError, match=f"--host {host}"):
        Server(host, 0)


def test_every_client_gets_its_own_pictures(opened, enter):
    first, second = enter(), enter()
    sharp(opened, first, second)
    seen = first.pictures()
    second.set("Time", 0.5)
    until(lambda: second.pictures() and opened.turn() is None, opened.turn)
    sharp(opened, second)
    assert first.pictures() == seen


def test_controls_may_be_used_before_all_are_there(opened, capfd):
    talk = Talk(opened.viser.get_port())
    talk.look()
    until(lambda: "Time" in talk.controls)
    talk.set("Time", 0.75)
    until(lambda: "Save path" in talk.controls and talk.pictures(), opened.turn)
    talk.close()
    until(lambda: not opened.clients())
    assert "Traceback" not in "".join(capfd.readouterr())


def test_frusta_get_frames_when_clients_rest(opened, enter):
    talk = enter()
    sharp(opened, talk)
    until(lambda: opened.turn() is None and not opened.turn_frusta())
    cameras = {f"/cameras/{k}" for k in range(3)}
    assert {m["name"] for m in talk.messages if m["type"] == "CameraFrustumMessage"} == cameras

    def with_images() -> set[str]:
        updates = [m for m in talk.messages if m["type"] == "SceneNodeUpdateMessage"]
        return {m["name"] for m in updates if "_image_data" in m["updates"]}

    until(lambda: with_images() == cameras)  # the last may still be on its way


def test_keys_of_a_path_are_visited_replaced_and_removed(opened, enter, folder):
    def path(name: str) -> list[dict]:
        talk.set("Name", name)
        talk.set("Save path", True)
        until(lambda: (folder / "paths" / f"{name}.json").is_file())
        return json.loads((folder / "paths" / f"{name}.json").read_text())["keys"]

    def said(text: str) -> None:
        until(lambda: text in str(talk.messages), opened.turn)

    talk = enter()
    for count, time in enumerate((0.25, 0.75), 1):
        talk.set("Time", time)
        talk.set("Add key", True)
        said(f"{count} keys")
    assert [key["time"] for key in path("two")] == [0.25, 0.75]

    talk.set("Key", "1: time 0.250")
    talk.messages.clear()
    talk.set("This key", "Go to")
    said("'value': 0.25")
    talk.set("Time", 0.5)
    talk.set("This key", "Replace")
    said("1: time 0.500")
    assert [key["time"] for key in path("replaced")] == [0.5, 0.75]
    talk.set("This key", "Remove")
    said("1 keys")
    assert [key["time"] for key in path("removed")] == [0.75]


def test_keys_may_be_added_faster_than_they_are_drawn(opened, enter, capfd):
    talk = enter()
    for k in range(40):
        talk.set("Add key", True)
        talk.set("Closed", k % 2 == 0)
    until(lambda: "40 keys" in str(talk.messages), opened.turn)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_saved_path_stays_in_its_folder(enter, folder):
    talk = enter()
    talk.set("Add key", True)
    until(lambda: "1 keys" in str(talk.messages))
    talk.set("Name", "../../evil")
    talk.set("Save path", True)
    until(lambda: "use letters" in str(talk.messages))
    talk.set("Name", "good")
    talk.set("Save path", True)
    until(lambda: any(message["type"] == "FileTransferStartDownload" for message in talk.messages))
    written = {file for file in folder.parent.rglob("*") if file.is_file()}
    assert folder / "paths" / "good.json" in written and {file.parent for file in written} == {folder / "paths"}


def test_the_threshold_of_masks_is_for_the_picture_of_masks(opened, enter):
    def sent() -> list[bool]:
        updates = [m["updates"] for m in talk.messages if m["type"] == "GuiUpdateMessage"]
        return [update["disabled"] for update in updates if "disabled" in update]

    talk = enter()
    assert talk.controls["Mask threshold"]["props"]["disabled"]
    talk.set("Output", "mask")
    until(lambda: sent() == [False], opened.turn)
    talk.set("Output", "rgb")
    until(lambda: sent() == [False, True], opened.turn)


@pytest.mark.parametrize("value", [float("nan"), "abc", None, [], -1e300])
def test_values_of_no_control_do_no_harm(opened, enter, value):
    talk = enter()
    for label in (
        "Time",
        "Speed",
        "Resolution",
        "Mask threshold",
        "Output",
        "Lower corner",
        "Camera",
        "Key",
        "This key",
    ):
        talk.set(label, value)
    talk.set("Crop", True)
    talk.set("Play", True)
    talk.look(position=(float("nan"), 0.0, 0.0))
    talk.look(image_height=0, fov="wide")
    for _ in range(20):
        opened.turn()
    other = enter()
    sharp(opened, other)


def test_pages_of_others_are_refused(opened):
    port = opened.viser.get_port()
    for origin in ("https://example.com", f"http://127.0.0.1:{port + 1}", "null"):
        stranger = Talk(port, origin)
        until(lambda stranger=stranger: not stranger.connected, opened.turn)
        assert not stranger.controls and not stranger.messages
        stranger.close()
    own = Talk(port, f"http://127.0.0.1:{port}")
    own.look()
    until(own.pictures, opened.turn)
    own.close()
    until(lambda: not opened.clients())


def test_no_client_opens_a_tunnel(opened, enter):
    talk = enter()
    talk.send(type="ShareUrlRequest")
    talk.set("Time", 0.25)  # it is read after the request
    until(lambda: talk.status() and opened.turn() is None, opened.turn)
    assert opened.viser.request_share_url() is None
    assert not any(m["type"] == "ShareUrlUpdated" and m["share_url"] for m in talk.messages)


@pytest.mark.parametrize(
    "path", ["/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/config.toml"]
)
def test_files_are_not_served(opened, path):
    connection = http.client.HTTPConnection("127.0.0.1", opened.viser.get_port())
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 404 and b"root:" not in answer.read()


def test_nothing_imports_viser_unless_asked():
    code = (
        "import sys, msth_taichi, msth_taichi.cli, msth_taichi.training.trainer, msth_taichi.viewer.view, "
        "msth_taichi.viewer.live; assert 'viser' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

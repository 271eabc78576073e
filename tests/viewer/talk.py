"""The other end of the viewer's connection, without a browser: sends what it likes, remembers what it is sent."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Talk:
    """A client of a viewer at a port of this machine.

    Args:
        port: of the viewer.
        origin: whose page it is; None for no page.

    Attributes:
        controls: messages that made controls, by label.
        messages: all others, in the order in which they came.
    """

    def __init__(self, port: int, origin: str | None = None):
        self.controls: dict[str, dict[str, Any]] = {}
        self.messages: list[dict[str, Any]] = []
        self._socket = connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=[f"viser-v{viser.__version__}"],  # type: ignore
            compression=None,
            origin=origin,  # type: ignore
            max_size=None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def connected(self) -> bool:
        return self._reader.is_alive()

    def close(self) -> None:
        self._socket.close()
        self._reader.join()

    def send(self, **message: Any) -> None:
        self._socket.send(msgspec.msgpack.encode(message))

    def look(self, position: tuple[float, ...] = (0.0, -1.0, 0.0), **changes: Any) -> None:
        """Stand somewhere and look along y."""
        half = 0.5**0.5
        camera = {"wxyz": (half, -half, 0.0, 0.0), "position": position, "fov": 1.0, "near": 0.01, "far": 100.0}
        camera |= {"image_height": 36, "image_width": 64, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}
        self.send(**(camera | changes | {"type": "ViewerCameraMessage"}))

    def set(self, label: str, value: Any) -> None:
        """Change a control, or press a button."""
        self.send(type="GuiUpdateMessage", uuid=self.controls[label]["uuid"], updates={"value": value})

    def pictures(self) -> int:
        """How many were sent."""
        return sum(message["type"] == "BackgroundImageMessage" for message in self.messages)

    def status(self) -> str:
        """What the viewer said last of the picture."""
        texts = [m["updates"].get("_markdown", "") for m in self.messages if m["type"] == "GuiUpdateMessage"]
        return next((text for text in reversed(texts) if " x " in text), "")

    def _read(self) -> None:
        try:
            for raw in self._socket:
                size = int.from_bytes(raw[8:16], "little")
                payload = zstandard.ZstdDecompressor().decompress(raw[16 : 16 + size])
                for message in msgspec.msgpack.decode(payload)["messages"]:
                    label = message.get("props", {}).get("label")
                    if label:
                        self.controls[label] = message
                    else:
                        self.messages.append(message)
        except ConnectionClosed:
            pass


def until(condition: Callable[[], Any], turn: Callable[[], Any] = lambda: None, times: int = 3000) -> None:
    """Take turns until a condition holds."""
    wait = threading.Event()
    for _ in range(times):
        turn()
        if condition():
            return
        wait.wait(0.01)
    raise AssertionError("it never happened")

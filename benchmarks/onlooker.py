"""A browser's end of the viewer's connection; run by bench_viewer.py, one that looks at the scene and does not move.

For each line of its standard input, it writes how many pictures came since the last.
"""

import asyncio
import sys
import threading
from typing import Any

import msgspec
import viser
import websockets
import zstandard

_CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (0.5**0.5, -(0.5**0.5), 0.0, 0.0),  # along y
    "position": (0.0, -1.0, 0.0),
    "fov": 1.0,
    "near": 0.01,
    "far": 1000.0,
    "image_height": 800,
    "image_width": 1280,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}


def connect(port: int) -> Any:
    """A connection to a viewer on this machine, for `async with`."""
    return websockets.connect(
        f"ws://127.0.0.1:{port}",
        subprotocols=[f"viser-v{viser.__version__}"],  # type: ignore
        max_size=None,
        compression=None,
    )


def messages(raw: bytes) -> list[dict[str, Any]]:
    """What the viewer sent at once."""
    size = int.from_bytes(raw[8:16], "little")
    return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(raw[16 : 16 + size]))["messages"]


class Onlooker:
    """Counts pictures."""

    def __init__(self) -> None:
        self.pictures = 0

    async def look(self, port: int) -> None:
        """Connect, say where it stands, and read what comes."""
        async with connect(port) as socket:
            await socket.send(msgspec.msgpack.encode(_CAMERA))
            async for raw in socket:
                self.pictures += sum(message["type"] == "BackgroundImageMessage" for message in messages(raw))


def main() -> None:
    onlooker = Onlooker()
    port = int(sys.argv[1])
    threading.Thread(target=lambda: asyncio.run(onlooker.look(port)), daemon=True).start()
    said = 0
    for _ in sys.stdin:
        seen = onlooker.pictures
        print(seen - said, flush=True)
        said = seen


if __name__ == "__main__":
    main()

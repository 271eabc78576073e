"""Many clients at once on `msth view`: errors, pictures and memory.

    python benchmarks/soak_viewer.py RUN --clients 5 --minutes 5

Starts the command and talks to it as browsers do, with random input: cameras that move and rest, controls set to values
within and without their limits, frustums clicked on, clients that leave and come back. Prints a line each half minute;
exit status 1 if the viewer wrote an error or its memory grew by more than --growth between the first fifth of the time
and the end.
"""

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from onlooker import connect, messages

NUMBERS = [-1e300, -1.0, 10**9]  # what is no number fails in viser already
TEXTS = ["../../etc/passwd", "/etc/passwd", "", "a" * 10_000, "flight"]


class Client:
    """One browser's end of the connection: learns the controls, and uses them at random."""

    def __init__(self, port: int, seed: int):
        self._port, self._random = port, random.Random(seed)
        self.pictures = self.messages = 0
        self._controls: dict[str, dict[str, Any]] = {}
        self._frusta: dict[str, str] = {}

    async def run(self, until: float) -> None:
        """Connect, stay for a while, leave, and again."""
        while time.time() < until:
            stay = min(until, time.time() + self._random.uniform(20, 60))
            self._controls, self._frusta = {}, {}
            async with connect(self._port) as socket:
                reading = asyncio.create_task(self._read(socket))
                try:
                    while time.time() < stay:
                        await self._act(socket)
                finally:
                    reading.cancel()

    async def _read(self, socket: Any) -> None:
        async for raw in socket:
            for message in messages(raw):
                self.messages += 1
                kind = message["type"]
                if kind == "BackgroundImageMessage":
                    self.pictures += 1
                elif kind == "CameraFrustumMessage":
                    self._frusta[message["name"]] = message.get("owner", "")
                elif kind.startswith("Gui") and "value" in message:
                    self._controls[message["uuid"]] = message

    async def _act(self, socket: Any) -> None:
        choice = self._random.random()
        if choice < 0.5 or not self._controls:
            for _ in range(self._random.randrange(1, 30)):
                await self._send(socket, self._camera())
                await asyncio.sleep(1 / 30)
        elif choice < 0.85:
            await self._send(socket, self._update(self._random.choice(list(self._controls.values()))))
        elif choice < 0.95 and self._frusta:
            name = self._random.choice(list(self._frusta))
            click = {"type": "SceneNodeClickMessage", "name": name, "owner": self._frusta[name], "modifier": None}
            click |= {"instance_index": None, "ray_origin": [0.0] * 3, "ray_direction": [0.0, 0.0, 1.0]}
            await self._send(socket, click | {"screen_pos": [0.5, 0.5]})
        else:
            await self._send(socket, {"type": "ShareUrlRequest"})
        await asyncio.sleep(self._random.choice([0.02, 0.2, 1.0, 3.0]))

    async def _send(self, socket: Any, message: dict[str, Any]) -> None:
        await socket.send(msgspec.msgpack.encode(message))

    def _camera(self) -> dict[str, Any]:
        number = self._random
        wxyz = [number.gauss(0, 1) for _ in range(4)]
        length = sum(x * x for x in wxyz) ** 0.5
        position = [number.uniform(-1, 1) for _ in range(3)]
        if number.random() < 0.02:
            position[0] = 1e30
        return {
            "type": "ViewerCameraMessage",
            "wxyz": [x / length for x in wxyz],
            "position": position,
            "fov": number.uniform(0.2, 2.0),
            "near": 0.01,
            "far": 1000.0,
            "image_height": number.choice([720, 1080, 0]),
            "image_width": number.choice([1280, 1920]),
            "look_at": [0.0, 0.0, 0.0],
            "up_direction": [0.0, 0.0, 1.0],
        }

    def _update(self, control: dict[str, Any]) -> dict[str, Any]:
        value, props = control["value"], control["props"]
        if isinstance(value, bool):
            value = self._random.random() < 0.5 if "Button" not in control["type"] else True
        elif isinstance(value, (int, float)):
            value = self._random.uniform(float(props.get("min") or 0), float(props.get("max") or 1))
            value = self._random.choice([value] * 20 + NUMBERS)
        elif isinstance(value, str):
            value = self._random.choice([*props.get("options", ()), *TEXTS])
        elif isinstance(value, (list, tuple)):
            value = [self._random.choice([self._random.uniform(-2, 2), *NUMBERS]) for _ in value]
        return {"type": "GuiUpdateMessage", "uuid": control["uuid"], "updates": {"value": value}}


def memory(process: int) -> float:
    """Resident megabytes of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def soak(process: int, port: int, count: int, seconds: float) -> list[float]:
    """Let clients at it; returns megabytes every few seconds."""
    start, sizes, said = time.time(), [], 0.0
    clients = [Client(port, seed) for seed in range(count)]
    tasks = [asyncio.create_task(client.run(start + seconds)) for client in clients]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(2)
        sizes.append(memory(process))
        if time.time() - said > 30:
            said = time.time()
            pictures = sum(client.pictures for client in clients)
            print(f"{said - start:5.0f} s  {sizes[-1]:7.1f} MB  {pictures} pictures", flush=True)
    await asyncio.gather(*tasks)
    print(f"{sum(client.pictures for client in clients)} pictures, {sum(c.messages for c in clients)} messages")
    return sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--growth", type=float, default=0.05, help="of memory that is allowed")
    options = parser.parse_args()
    command = [sys.executable, "-u", "-m", "msth_taichi", "view", options.run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as viewer:
        assert viewer.stdout is not None
        line = viewer.stdout.readline()
        found = re.search(r":(\d+);", line)
        if found is None:
            print(line, viewer.stdout.read())
            return 1
        sizes = asyncio.run(soak(viewer.pid, int(found[1]), options.clients, 60 * options.minutes))
        viewer.terminate()
        written = viewer.stdout.read()
    fifth = max(1, len(sizes) // 5)
    before, after = max(sizes[:fifth]), sum(sizes[-fifth:]) / fifth
    print(f"memory {before:.1f} MB in the first fifth, {after:.1f} MB in the last: {after / before - 1:+.1%}")
    print(f"the viewer wrote: {written.strip() or 'nothing'}")
    return int(bool(re.search("Traceback|Error|failed", written)) or after > before * (1 + options.growth))


if __name__ == "__main__":
    sys.exit(main())

"""Videos with a packet that is not what it was."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np


def write_groups(
    path: Path, frames: Sequence[np.ndarray], every: int, codec: str = "libx264", between: int = 0
) -> None:
    """Frames (H, W, 3) uint8 with a key frame every so many, and frames between two others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"g": str(every), "keyint_min": str(every), "bf": str(between), "sc_threshold": "0", "preset": "fast"}
    if codec == "libx265":
        options = {"x265-params": f"keyint={every}:min-keyint={every}:bframes={between}:log-level=none"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def spoil(path: Path, frame: int, size: int | None = None) -> None:
    """Zeros in place of the packet that shows a frame, or of `size` bytes in its middle."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        packet = sorted(packets, key=lambda p: p.pts)[frame]
        first, count = packet.pos, packet.size
    if size is not None:
        first, count = first + (count - size) // 2, size
    data = bytearray(path.read_bytes())
    data[first : first + count] = bytes(count)
    path.write_bytes(data)

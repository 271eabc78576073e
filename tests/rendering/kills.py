"""Kill a batch of renders at random moments until it is done, and compare it with one that was left alone.

    python kills.py RUN FOLDER

Frames are cheap stand-ins that depend on camera and time alone. A kill is SIGKILL: no block is left in good order.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import torch
from PIL import Image

from msth_taichi.rendering import jobs
from msth_taichi.rendering.frame_files import load_frame
from msth_taichi.rendering.jobs import parse_job, render_jobs
from msth_taichi.training.run import read_config, read_scene

FRAMES = 12
KINDS = ({"format": "mp4", "outputs": "rgb,depth"}, {"format": "png", "outputs": "depth,mask"}, {"format": "webp"})


def stand_in(cameras, index, time, mode):
    width, height = cameras.size(index)
    ramp = torch.linspace(0.1, 1, height * width).view(height, width)
    position = cameras.camera_to_world[index, :, 3].abs()
    grey = (ramp + time + position[0]) % 1
    return {"rgb": torch.stack([grey] * 3, -1), "depth": ramp + time, "accumulation": grey, "mask": grey}


def batch(run: Path, folder: Path) -> None:
    made = []
    for number, kind in enumerate(KINDS):
        output = folder / f"{number}{'' if kind['format'] == 'png' else '.' + kind['format']}"
        made.append(parse_job({"run": run, "frames": FRAMES, "scale": 4, "output": output, **kind}, "kills"))
    report = render_jobs(made, progress=False)
    assert not report.failures, report.failures


def forked(run: Path, folder: Path) -> int:
    process = os.fork()
    if process == 0:
        status = 1
        try:
            batch(run, folder)
            status = 0
        finally:
            os._exit(status)
    return process


def require_whole(folder: Path) -> None:
    """What carries a final name decodes, whatever was killed; half-written files begin with a dot."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".mp4" and ".work" not in path.parent.name:
            with av.open(str(path)) as container:
                assert sum(1 for _ in container.decode(video=0)) == FRAMES, path
        elif path.suffix == ".png":
            load_frame(path)
        elif path.suffix == ".webp":
            with Image.open(path) as image:
                assert image.n_frames == FRAMES, path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(folder: Path) -> set[str]:
    """All files; os.walk takes no notice of a folder that vanishes under it."""
    return {f"{place}/{file}" for place, _, files in os.walk(folder) for file in files}


def wait_for_change(process: int, folder: Path, count: int) -> bool:
    """Wait until as many names have come or gone, so that every start gets on; whether the process ended first."""
    before = names(folder)
    while len(before ^ names(folder)) < count:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            assert status == 0
            return True
        time.sleep(0.002)
    return False


def main(run: Path, folder: Path) -> None:
    torch.set_num_threads(1)  # a forked process has no other threads
    opened = SimpleNamespace(config=read_config(run), scene=read_scene(run), renderer=SimpleNamespace(image=stand_in))
    jobs.load_run = lambda *_: opened
    assert os.waitpid(forked(run, folder / "whole"), 0)[1] == 0
    draw, kills = random.Random(5), 0
    while True:
        process = forked(run, folder / "killed")
        ended = wait_for_change(process, folder / "killed", draw.randint(1, 12))
        if ended:
            break
        time.sleep(draw.uniform(0, 0.02))  # into the middle of whatever comes next
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        require_whole(folder / "killed")
        kills += 1
    assert contents(folder / "killed") == contents(folder / "whole")
    assert kills > 1
    print(f"equal after {kills} kills")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

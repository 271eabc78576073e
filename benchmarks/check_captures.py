"""What `msth check` finds in a multi-view capture as it is, and in copies with one fault each.

    python benchmarks/check_captures.py ../shared/data/basketball

Copies are made in a temporary folder and have the first --cameras cameras of transforms_train.json; their videos are
used where they lie but for the one that is spoiled. A fault counts as found if the spoiled camera, and no other, is
named by errors and by warnings about poses, or if the data set is refused with a line that names the camera's file or
entry.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from options import RESULTS, commit

from msth_taichi.checking.check import Report, check
from msth_taichi.checking.findings import Finding
from msth_taichi.errors import DataError
from msth_taichi.files import write_text

Json = dict[str, Any]
Spoil = Callable[[Json, Path], None]
"""Changes an entry of the json; the path is where a new video may be written."""


@dataclass(frozen=True)
class Case:
    """A fault, and the camera (by position) that has it."""

    title: str
    spoil: Spoil | None = None
    camera: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with transforms_train.json that names videos")
    parser.add_argument("--cameras", type=int, default=10, help="of each copy")
    parser.add_argument("--spoiled", type=int, nargs="+", default=[2, 7], help="positions of cameras to spoil in turn")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of check.md")
    parser.add_argument("--commit", default=commit(), help="default: what git says")
    options = parser.parse_args()
    lines = [
        "# What `msth check` finds",
        "",
        f"`python benchmarks/check_captures.py`, {options.data.name}, commit {options.commit}. "
        f"Copies have {options.cameras} cameras; seconds are of two CPU cores.",
        "",
        "| capture | spoiled | found | named | s |",
        "|---|---|---|---|---|",
    ]
    complete = True
    remarks: list[str] = []
    for title, spoiled, report, refused, seconds in run_cases(options.data, options.cameras, options.spoiled):
        named = sorted({name for f in report.findings if _accuses(f) for name in f.cameras}) if report else []
        at, name = spoiled or (0, "")
        found = (f"frame {at}:" in refused or name in refused) if refused else named == ([name] if name else [])
        complete &= found
        row = f"| {title} | {name or '-'} | {'yes' if found else 'NO'} | "
        lines.append(row + f"{', '.join(named) or ('refused' if refused else '-')} | {seconds:.0f} |")
        told = [refused] if refused else [f.line() for f in report.findings if f.level != "ok"] if report else []
        remarks += [f"\n## {title}{': ' + name if name else ''}\n", *(f"- {line}" for line in told)]
        print(lines[-1], *told, sep="\n    ", flush=True)
    write_text(options.results / "check.md", "\n".join([*lines, *remarks]) + "\n")
    sys.exit(0 if complete else 1)


def run_cases(
    data: Path, cameras: int, spoiled: list[int]
) -> Iterator[tuple[str, tuple[int, str] | None, Report | None, str, float]]:
    """Title, place and name of the spoiled camera, report or refusal, and seconds of each case."""
    yield ("as it is, all cameras", None, *_timed(data))
    top = json.loads((data / "transforms_train.json").read_text())
    cases = [Case("as it is")]
    for camera in spoiled:
        cases += [
            Case("delayed by 5 frames", _delayed(5), camera),
            Case("early by 3 frames", _delayed(-3), camera),
            Case("y and z axes flipped", _flipped(1, -1, -1), camera),
            Case("x and y axes flipped", _flipped(-1, -1, 1), camera),
            Case("x and z axes flipped", _flipped(-1, 1, -1), camera),
            Case("one axis flipped (a mirror)", _flipped(1, -1, 1), camera),
            Case("turned by 3 degrees about its y axis", _turned(3), camera),
            Case("cut after 90 frames", _cut, camera),
            Case("file broken off half way", _broken, camera),
            Case("another camera's video", _swapped(top["frames"][(camera + 3) % cameras]), camera),
        ]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            name = _copy(data, top, Path(folder), cameras, case)
            yield (case.title, (case.camera, name) if name else None, *_timed(Path(folder)))


def _accuses(finding: Finding) -> bool:
    return finding.level == "error" or (finding.level == "warning" and finding.check == "poses")


def _timed(data: Path) -> tuple[Report | None, str, float]:
    start = time.perf_counter()
    try:
        return check(str(data), progress=False), "", time.perf_counter() - start
    except DataError as error:
        return None, str(error), time.perf_counter() - start


def _copy(data: Path, top: Json, folder: Path, cameras: int, case: Case) -> str:
    """Write a copy with one fault; returns the name of the camera that has it."""
    entries = [dict(entry) for entry in top["frames"][:cameras]]
    for entry in entries:
        entry["file_path"] = str((data / entry["file_path"]).resolve())
    name = ""
    if case.spoil:
        entry = entries[case.camera]
        name = str(entry.get("camera", Path(entry["file_path"]).stem))
        case.spoil(entry, folder / f"{name}.mp4")
    (folder / "transforms.json").write_text(json.dumps({**top, "frames": entries}))
    return name


def _flipped(*signs: int) -> Spoil:
    def spoil(entry: Json, _: Path) -> None:
        matrix = np.array(entry["transform_matrix"])
        matrix[:3, :3] *= signs
        entry["transform_matrix"] = matrix.tolist()

    return spoil


def _turned(degrees: float) -> Spoil:
    def spoil(entry: Json, _: Path) -> None:
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix = np.array(entry["transform_matrix"])
        matrix[:3, :3] = matrix[:3, :3] @ [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
        entry["transform_matrix"] = matrix.tolist()

    return spoil


def _delayed(frames: int) -> Spoil:
    """The picture stands still for so many frames first, or at the end for a negative number."""

    def spoil(entry: Json, path: Path) -> None:
        with av.open(str(entry["file_path"])) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        order = np.clip(np.arange(len(pictures)) - frames, 0, len(pictures) - 1)
        with av.open(str(path), "w") as target:
            encoder = target.add_stream("libx264", rate=rate, options={"crf": "16"})
            encoder.height, encoder.width = pictures[0].shape[:2]
            encoder.pix_fmt = "yuv420p"
            for k in order:
                target.mux(encoder.encode(av.VideoFrame.from_ndarray(pictures[k], format="rgb24")))
            target.mux(encoder.encode())
        entry["file_path"] = str(path)

    return spoil


def _cut(entry: Json, path: Path) -> None:
    source, target = av.open(str(entry["file_path"])), av.open(str(path), "w")
    with source, target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for k, packet in enumerate(source.demux(stream)):
            if packet.dts is None or k >= 90:
                break
            packet.stream = copy
            target.mux(packet)
    entry["file_path"] = str(path)


def _broken(entry: Json, path: Path) -> None:
    content = Path(entry["file_path"]).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    entry["file_path"] = str(path)


def _swapped(other: Json) -> Spoil:
    def spoil(entry: Json, path: Path) -> None:
        folder = Path(entry["file_path"]).parent
        entry["file_path"] = str(folder / Path(other["file_path"]).name)

    return spoil


if __name__ == "__main__":
    main()

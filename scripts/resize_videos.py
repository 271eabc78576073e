"""Change the size and the frame rate of a data set's videos; its calibration is carried along."""

import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import av
import typer
from program import Overwrite, run
from tqdm import tqdm
from videos import Crf, Encoding, Lossless, find_videos, rate_of, read_frames, write_video

from msth_taichi.errors import DataError
from msth_taichi.files import replacing, write_json
from msth_taichi.scene.sources import FileInfo, probe_video

_LENGTHS_X = ("fl_x", "cx", "w")
_LENGTHS_Y = ("fl_y", "cy", "h")
_OF_THE_IMAGE = (*_LENGTHS_X, *_LENGTHS_Y, "num_frames", "fps", "start_frame")


def resize(
    source: Annotated[Path, typer.Argument(help="Folder of a data set with videos, or of videos alone.")],
    output: Annotated[Path, typer.Option(help="Folder to write; the names inside stay.")],
    scale: Annotated[float | None, typer.Option(min=0.01, max=16, help="Factor on both axes, such as 0.5.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Height in pixels; the width follows.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.01, help="Frames per second: frames are left out or repeated, not blended.")
    ] = None,
    crf: Crf = 12,
    lossless: Lossless = False,
    overwrite: Overwrite = False,
) -> None:
    """Change the size and the frame rate of a data set's videos.

    The images are averaged over areas. transforms*.json are rewritten for the new size; poses_bounds.npy and
    models.json hold for every size and are copied with all else. Videos that are there already are skipped.
    """
    if (scale is None) == (height is None) and not (scale is None and fps is not None):
        raise DataError("give --scale or --height, or --fps alone")
    if output.resolve() == source.resolve() or source.resolve() in output.resolve().parents:
        raise DataError(f"--output {output}: lies in the input; choose a folder beside it")
    files = find_videos(source)
    infos = {file: probe_video(file) for file in files}
    targets: dict[Path, Encoding] = {}
    for file, info in infos.items():
        width, tall = _size(info, scale, height)
        rate = rate_of(file) if fps is None else Fraction(fps).limit_denominator(1001)
        targets[file] = Encoding(width, tall, rate, crf, lossless)

    names = [output / file.relative_to(source).with_suffix(".mp4") for file in files]
    if len(set(names)) < len(names):
        raise DataError(f"{source}: two videos differ in the suffix alone, but all become .mp4; rename one")
    written = 0
    with tqdm(total=sum(info.frames for info in infos.values()), unit="frame", disable=None) as progress:
        for file, path in zip(files, names, strict=True):
            progress.set_description(file.name)
            if path.exists() and not overwrite:
                _require_same(path, targets[file])
                progress.update(infos[file].frames)
                continue
            frames = _counted(read_frames(file), progress)
            write_video(path, _at_rate(frames, rate_of(file), targets[file].rate), targets[file])
            written += 1
    copied = _copy_rest(source, output, infos, targets, overwrite)
    print(f"{output}: {written} videos written, {len(files) - written} there already, {copied} other files")
    print(f"next: msth info {output}")


def _size(info: FileInfo, scale: float | None, height: int | None) -> tuple[int, int]:
    factor = height / info.height if height is not None else scale or 1.0
    return max(round(info.width * factor), 1), max(round(info.height * factor), 1)


def _at_rate(frames: Iterator[av.VideoFrame], source: Fraction, target: Fraction) -> Iterator[av.VideoFrame]:
    """The frame shown at each time k / target: every camera of a rig leaves out the same frames."""
    if source == target:
        yield from frames
        return
    index, frame = -1, None
    for k in count():
        wanted = int(k * source / target)
        while index < wanted:
            frame = next(frames, None)
            if frame is None:
                return
            index += 1
        assert frame is not None
        yield frame


def frames_at_rate(frames: int, source: Fraction, target: Fraction) -> int:
    """How many frames `_at_rate` makes of this many.

    Example:
        >>> frames_at_rate(5, Fraction(30), Fraction(15)), frames_at_rate(2, Fraction(10), Fraction(30))
        (3, 6)
    """
    return -int(-frames * target // source)


def _counted(frames: Iterator[av.VideoFrame], progress: Any) -> Iterator[av.VideoFrame]:
    for frame in frames:
        progress.update()
        yield frame


def _require_same(path: Path, encoding: Encoding) -> None:
    info = probe_video(path)
    if (info.width, info.height) != (encoding.width, encoding.height) or rate_of(path) != encoding.rate:
        raise DataError(
            f"{path}: is there with {info.width}x{info.height} at {info.fps:g} frames per second, not "
            f"{encoding.width}x{encoding.height} at {float(encoding.rate):g}; "
            "use --overwrite or another --output"
        )


def _copy_rest(
    source: Path, output: Path, infos: dict[Path, FileInfo], targets: dict[Path, Encoding], overwrite: bool
) -> int:
    copied = 0
    for file in sorted(source.rglob("*")):
        if file in infos or not file.is_file() or file.name.startswith("."):
            continue
        path = output / file.relative_to(source)
        if file.name.startswith("transforms") and file.suffix == ".json":
            write_json(path, _resized_json(file, infos, targets))
        elif overwrite or not path.exists():
            with replacing(path) as temporary:
                shutil.copyfile(file, temporary)
        else:
            continue
        copied += 1
    return copied


def _resized_json(path: Path, infos: dict[Path, FileInfo], targets: dict[Path, Encoding]) -> dict[str, Any]:
    """A json of the transforms family for the new videos; lengths go to the entries, whose ratios may differ."""
    try:
        values = json.loads(path.read_text())
        entries = values["frames"]
        names = [entry["file_path"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a list of cameras with 'file_path'; correct or remove it") from error
    by_path = {file.resolve(): file for file in infos}
    common = {key: values.pop(key) for key in _OF_THE_IMAGE if key in values}
    for key in ("train_filenames", "test_filenames", "val_filenames"):
        if isinstance(values.get(key), list):
            values[key] = [_as_mp4(name) for name in values[key]]
    frames = []
    for entry, name in zip(entries, names, strict=True):
        file = by_path.get((path.parent / name).resolve())
        if file is None:
            raise DataError(f"{path}: '{name}' is no video of this folder; restore it or remove its entry")
        frames.append(_resized_entry({**entry, **common}, file, infos[file], targets[file]))
    shared = {
        key: frames[0][key]
        for key in ("num_frames", "fps")
        if all(key in frame and frame[key] == frames[0][key] for frame in frames)
    }
    if "num_frames" in common:
        shared["num_frames"] = min(frame["num_frames"] for frame in frames)
    return {**values, **shared, "frames": [{k: v for k, v in frame.items() if k not in shared} for frame in frames]}


def _as_mp4(name: str) -> str:
    return Path(name).with_suffix(".mp4").as_posix()


def _resized_entry(entry: dict[str, Any], file: Path, info: FileInfo, target: Encoding) -> dict[str, Any]:
    result = {**entry, "file_path": _as_mp4(entry["file_path"])}
    for keys, ratio in ((_LENGTHS_X, target.width / info.width), (_LENGTHS_Y, target.height / info.height)):
        for key in keys:
            if key in result:
                result[key] = result[key] * ratio
    for key, value in (("w", target.width), ("h", target.height)):
        if key in result:
            result[key] = value
    rate = rate_of(file)
    if rate != target.rate:
        if "num_frames" in result:
            result["num_frames"] = frames_at_rate(int(result["num_frames"]), rate, target.rate)
        if "start_frame" in result:
            result["start_frame"] = round(result["start_frame"] * float(target.rate / rate))
        result["fps"] = float(target.rate)
    return result


if __name__ == "__main__":
    run(resize)

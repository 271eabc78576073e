"""Folders of frames, one a camera, to videos and back."""

import re
import shutil
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import av
import imageio.v3 as iio
import typer
from program import Overwrite, run
from tqdm import tqdm
from videos import Crf, Encoding, Lossless, find_videos, frame_of, read_frames, write_video

from msth_taichi.errors import DataError
from msth_taichi.files import new_folder, replacing
from msth_taichi.scene.sources import IMAGE_SUFFIXES, probe_image, probe_video


def videos(
    source: Annotated[Path, typer.Argument(help="Folder with a folder of frames for each camera.")],
    output: Annotated[Path, typer.Option(help="Folder to write a video of each camera into.")],
    fps: Annotated[float, typer.Option(min=0.01, help="Frames per second.")] = 30.0,
    crf: Crf = 12,
    lossless: Lossless = False,
    overwrite: Overwrite = False,
) -> None:
    """Make cam00.mp4 of cam00/0000.png, 0001.png ... (or of cam00/images/), for each folder.

    Calibration files beside the folders (.npy, .json, .txt) are copied. Videos that are there already are skipped.
    """
    cameras = _camera_folders(source)
    written = 0
    with tqdm(total=sum(map(len, cameras.values())), unit="frame", disable=None) as progress:
        for name, files in cameras.items():
            progress.set_description(name)
            path = output / f"{name}.mp4"
            if path.exists() and not overwrite:
                _require_frames(path, len(files))
                progress.update(len(files))
                continue
            info = probe_image(files[0])
            rate = Fraction(fps).limit_denominator(1001)
            encoding = Encoding(info.width, info.height, rate, crf, lossless)
            write_video(path, _images(files, info.width, info.height, progress), encoding)
            written += 1
    _copy_calibration(source, output, overwrite)
    print(f"{output}: {written} videos written, {len(cameras) - written} there already")
    print(f"next: msth info {output}")


def images(
    source: Annotated[Path, typer.Argument(help="Folder of videos.")],
    output: Annotated[Path, typer.Option(help="Folder to write a folder of frames of each video into.")],
    suffix: Annotated[str, typer.Option(help="png keeps every pixel, jpg is smaller.")] = "png",
    every: Annotated[int, typer.Option(min=1, help="Keep every n-th frame.")] = 1,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames of a video.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make cam00/0000.png, 0001.png ... of cam00.mp4, for each video.

    Calibration files beside the videos (.npy, .json, .txt) are copied. Folders that are there already are skipped.
    """
    if suffix not in ("png", "jpg"):
        raise DataError(f"--suffix {suffix}: choose png or jpg")
    files = find_videos(source)
    counts = {file: min(probe_video(file).frames, frames or 10**9) for file in files}
    written = 0
    with tqdm(total=sum(counts.values()), unit="frame", disable=None) as progress:
        for file, count in counts.items():
            progress.set_description(file.name)
            folder = output / file.relative_to(source).with_suffix("")
            if folder.exists() and not overwrite:
                progress.update(count)
                continue
            digits = max(4, len(str(count - 1)))
            with new_folder(folder) as temporary:
                for index, frame in enumerate(read_frames(file)):
                    if index == count:
                        break
                    if index % every == 0:
                        path = temporary / f"{index // every:0{digits}d}.{suffix}"
                        options: dict[str, Any] = {"quality": 95} if suffix == "jpg" else {}
                        iio.imwrite(path, frame.to_ndarray(format="rgb24"), plugin="pillow", **options)
                    progress.update()
            written += 1
    _copy_calibration(source, output, overwrite)
    print(f"{output}: frames of {written} videos written, {len(files) - written} there already")


def _copy_calibration(source: Path, output: Path, overwrite: bool) -> None:
    for file in sorted(source.iterdir()):
        if file.suffix in (".npy", ".json", ".txt") and (overwrite or not (output / file.name).exists()):
            with replacing(output / file.name) as temporary:
                shutil.copyfile(file, temporary)


def _camera_folders(source: Path) -> dict[str, list[Path]]:
    """Frames of each camera in order, by the name of its folder.

    Raises:
        DataError: there is no such folder, frames are missing, or two cameras have different numbers of them.
    """
    if not source.is_dir():
        raise DataError(f"{source}: not a folder; give the folder that holds the cameras' folders")
    cameras = {}
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inner = folder / "images"
        files = _frames(inner if inner.is_dir() else folder)
        if files:
            cameras[folder.name] = files
    if not cameras:
        raise DataError(f"{source}: no folder with images in it; expected cam00/0000.png or cam00/images/0000.png")
    first, length = next((name, len(files)) for name, files in cameras.items())
    for name, files in cameras.items():
        if len(files) != length:
            raise DataError(
                f"{source / name}: {len(files)} frames, but {first} has {length}; "
                "restore or remove frames so that all cameras have the same"
            )
    return cameras


def _frames(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    numbers = {}
    for file in files:
        found = re.findall(r"\d+", file.stem)
        if not found:
            raise DataError(f"{file}: no number in its name, so its place in time is unknown; number the frames")
        number = int(found[-1])
        if number in numbers:
            raise DataError(f"{file}: has the same number as {numbers[number].name}; keep one of them")
        numbers[number] = file
    order = sorted(numbers)
    steps = {after - before for before, after in pairwise(order)}
    if len(steps) > 1:
        step = min(steps)
        hole = next(number for number in order if number + step not in numbers)
        raise DataError(f"{folder}: the frame after {numbers[hole].name} is missing; restore it, or number them again")
    return [numbers[number] for number in order]


def _images(files: list[Path], width: int, height: int, progress: Any) -> Iterator[av.VideoFrame]:
    for file in files:
        info = probe_image(file)
        if (info.width, info.height) != (width, height):
            raise DataError(f"{file}: {info.width}x{info.height}, but {files[0].name} is {width}x{height}")
        if info.channels == 4:
            raise DataError(f"{file}: has alpha, which a video cannot hold; train on the images, or remove it")
        try:
            array = iio.imread(file, plugin="pillow", index=0, mode="RGB")
        except Exception as error:  # decoders raise errors of many kinds
            raise DataError(f"{file}: unreadable image ({' '.join(str(error).split())}); restore it") from error
        yield frame_of(array)
        progress.update()


def _require_frames(path: Path, frames: int) -> None:
    found = probe_video(path).frames
    if found != frames:
        raise DataError(f"{path}: is there with {found} frames, not {frames}; use --overwrite or another --output")


if __name__ == "__main__":
    run(videos, images)

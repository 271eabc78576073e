"""Unpacking archives from strangers: zip, zip in volumes, tar.

Nothing is written outside the folder that was asked for; links, devices and encrypted members are refused.
"""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from program import size_text
from tqdm import tqdm

from msth_taichi.errors import DataError, RunError

_CLUTTER = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    parts: tuple[str, ...]
    size: int
    open: Callable[[], Any]


def unpack(volumes: Sequence[Path], folder: Path, *, inside: str = "") -> int:
    """Unpack an archive into a new folder; folders that only wrap another one are left out.

    Args:
        volumes: the archive, or the volumes of a split zip (.z01, .z02, ..., .zip) in this order.
        folder: is created when all of it is unpacked, never half; one that exists is replaced.
        inside: only what lies in a folder of this name, anywhere in the archive.
    Returns:
        How many files were unpacked.
    Raises:
        DataError: damaged, empty, or a member's name leads outside.
        RunError: not enough room on the disk.

    Example:
        >>> unpack([Path("mutant.zip")], Path("data/mutant"))  # doctest: +SKIP
        361
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with _members(volumes) as members:
            chosen = _chosen(members, inside)
            if not chosen:
                wanted = f"no folder '{inside}' in it" if inside else "empty"
                raise DataError(f"{volumes[-1]}: {wanted}; remove the file and run the command again")
            needed = sum(member.size for member in chosen)
            require_space(folder.parent, needed)
            with tqdm(total=needed, unit="B", unit_scale=True, desc="unpack", disable=None, leave=False) as progress:
                for member in chosen:
                    path = temporary.joinpath(*member.parts)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with member.open() as source, path.open("xb") as target:
                        while block := source.read(1 << 20):
                            target.write(block)
                            progress.update(len(block))
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{volumes[-1]}: damaged ({' '.join(str(error).split())}); remove the file and run the command again"
        ) from error
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be unpacked ({error.strerror or error}); "
            "free the disk, then run the same command: the archive is kept"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(chosen)


def require_space(folder: Path, needed: int) -> None:
    """RunError if the disk that `folder` lies on has less than `needed` bytes free."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder}: {size_text(needed)} are needed, but {size_text(free)} are free; "
            "free the disk or choose another --output"
        )


def _chosen(members: Sequence[Member], inside: str) -> list[Member]:
    """Members without clutter and without the folders that wrap all of them."""
    found = [member for member in members if not any(part in _CLUTTER for part in member.parts)]
    if inside:
        found = [
            Member(member.parts[member.parts.index(inside) + 1 :], member.size, member.open)
            for member in found
            if inside in member.parts[:-1]
        ]
    while found and all(len(member.parts) > 1 and member.parts[0] == found[0].parts[0] for member in found):
        found = [Member(member.parts[1:], member.size, member.open) for member in found]
    return found


@contextmanager
def _members(volumes: Sequence[Path]) -> Iterator[list[Member]]:
    """The files of an archive, readable while the block lasts; every name checked."""
    last = volumes[-1]
    if tarfile.is_tarfile(last):
        with tarfile.open(last) as tar:
            yield [_tar_member(tar, info, last) for info in tar if not info.isdir()]
    elif zipfile.is_zipfile(last):
        with _Joined(volumes) as file, zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(volumes) > 1:
                _relocate(infos, [path.stat().st_size for path in volumes])
            yield [_zip_member(archive, info, last) for info in infos]
    else:
        raise DataError(f"{last}: neither a zip nor a tar archive; remove the file and run the command again")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Member:
    if info.external_attr >> 16 & 0o170000 == 0o120000:
        raise DataError(f"{path}: '{info.filename:.80}' is a link; unpack the archive yourself if you trust it")
    return Member(_safe(info.filename, path), info.file_size, lambda: archive.open(info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> Member:
    if not info.isreg():
        raise DataError(f"{path}: '{info.name:.80}' is a link or device; unpack the archive yourself if you trust it")
    return Member(_safe(info.name, path), info.size, lambda: archive.extractfile(info))


def _safe(name: str, path: Path) -> tuple[str, ...]:
    """The parts of a member's name, which must stay below the folder it is unpacked into."""
    parts = tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part != ".")
    foreign = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
    if foreign or not parts or ".." in parts or "\0" in name:
        raise DataError(f"{path}: '{name:.80}' leads out of the folder; the archive is not to be trusted: remove it")
    return parts


def _relocate(infos: Sequence[zipfile.ZipInfo], sizes: Sequence[int]) -> None:
    """Let the members of a zip in volumes say where they lie in the joined file.

    A member names its volume and the place in it. `zipfile` reads one file, and takes all places for places in the last
    volume, where the directory is.
    """
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    for info in infos:
        if not 0 <= info.volume < len(starts):
            raise zipfile.BadZipFile(f"volume {info.volume + 1} of {len(starts)}")
        info.header_offset += starts[info.volume] - starts[-1]
        # newer versions of Python also note where the next member begins, of the wrong places
        if hasattr(info, "_end_offset"):
            setattr(info, "_end_offset", None)  # noqa: B010


class _Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[BinaryIO] = [path.open("rb") for path in paths]
        sizes = [path.stat().st_size for path in paths]
        self._ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ends[-1]}[whence]
        if origin + offset < 0:
            raise OSError(22, "a place before the first byte")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the file that holds the place; may stop at its end, as a raw read may."""
        for file, end, start in zip(self._files, self._ends, [0, *self._ends], strict=False):
            if self._position < end:
                file.seek(self._position - start)
                block = file.read(min(len(buffer), end - self._position))
                buffer[: len(block)] = block
                self._position += len(block)
                return len(block)
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()

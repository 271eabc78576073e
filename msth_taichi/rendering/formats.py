"""What is written: a file of all frames, or a folder with a file of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One value of --format.

    Attributes:
        suffix: of the file; empty for a folder of frames.
        frame: suffix of a frame's file, in the folder or while it waits to go into the file.
        alpha: whether it keeps transparency.
        numbers: whether it holds an output's numbers rather than its picture.
        most: pixels along an edge; None where more are held than a render may have.
    """

    suffix: str
    frame: str = ".png"
    alpha: bool = False
    numbers: bool = False
    most: int | None = None


FORMATS = {
    "mp4": Format(".mp4", most=16384),
    "png": Format("", alpha=True),
    "webp": Format(".webp", alpha=True, most=16383),
    "gif": Format(".gif"),
    "npz": Format("", ".npz", alpha=True, numbers=True),
    "exr": Format("", ".exr", alpha=True, numbers=True),
}

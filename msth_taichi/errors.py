"""Errors a user can act on: one line that names the file or setting, what was found, and the remedy."""

from pathlib import Path


class MsthError(Exception):
    """Base of every error this package raises on purpose. The command line prints it and exits with 2."""


class ConfigError(MsthError):
    """A preset, a setting or its value is wrong."""


class DataError(MsthError):
    """A file of the data set is missing, unreadable or contradicts another."""


class FrameError(DataError):
    """One frame cannot be decoded, which says nothing about the others.

    Args:
        message: as of every error.
        file: that holds the frame.
        frame: its number in the file; None where the file is a single image.
    """

    def __init__(self, message: str, file: Path, frame: int | None = None):
        super().__init__(message)
        self.file, self.frame = file, frame


class RunError(MsthError):
    """A run folder, a checkpoint or an output path cannot be used as asked."""


class DeviceError(MsthError):
    """The device that was asked for is not there, or another one is already in use."""


class DivergenceError(MsthError):
    """The loss is no longer a finite number."""


class TensorError(MsthError, ValueError):
    """A tensor given to an operator has the wrong shape, dtype, device or layout."""

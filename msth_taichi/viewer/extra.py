"""Whether the viewer's libraries are there."""

import importlib.util

from msth_taichi.errors import RunError


def require_viser() -> None:
    """Make sure that the extra is installed.

    Raises:
        RunError: it is not; says which command installs it.
    """
    if importlib.util.find_spec("viser") is None:
        raise RunError("the viewer needs the package viser; install it with: pip install 'msth_taichi[viewer]'")

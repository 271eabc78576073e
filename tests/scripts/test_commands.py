"""The commands of docs/scripts.md, held against the scripts."""

import importlib
import re
import shlex

import pytest

from tests.scripts.conftest import SCRIPTS

PAGE = (SCRIPTS.parent / "docs" / "scripts.md").read_text()
COMMANDS = re.findall(r"^    python scripts/(\w+)\.py (.+)$", PAGE, re.MULTILINE)

FUNCTIONS = {
    "download": ("download",),
    "resize_videos": ("resize",),
    "convert_dynerf_images": ("videos", "images"),
    "render_batch": ("render_batch",),
    **{f"convert_{name}": (f"convert_{name}",) for name in ("video", "n3v", "immersive", "hypernerf", "colmap")},
}


@pytest.mark.parametrize(("script", "arguments"), COMMANDS, ids=[f"{name} {rest}" for name, rest in COMMANDS])
def test_documented_options_exist(call, script, arguments):
    commands = tuple(getattr(importlib.import_module(script), name) for name in FUNCTIONS[script])
    words = shlex.split(arguments)
    code, text, _ = call(commands, *words[: len(commands) > 1], "--help")
    assert code == 0
    for word in words:
        if word.startswith("--"):
            assert f"{word} " in text, f"{script}.py has no {word}"


def test_every_script_is_documented():
    assert {script for script, _ in COMMANDS} == set(FUNCTIONS)
    there = {
        path.stem
        for path in SCRIPTS.glob("*.py")
        if path.stem.startswith(("convert_", "resize_", "download", "render_"))
    }
    assert there == set(FUNCTIONS)

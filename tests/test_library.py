"""The library as its page shows it."""

import os
import re
import shutil
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


def blocks() -> list[str]:
    """The indented blocks of the page."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", PAGE.read_text(), re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in found]


@pytest.fixture(scope="module")
def names(tiny_run, tmp_path_factory):
    """What the page's code defines, one block after the other, with the tiny run for runs/first."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(tiny_run.path, folder / "runs" / "first")
    here = Path.cwd()
    os.chdir(folder)
    try:
        found = {"FOLDER": folder}
        for block in blocks():
            exec(compile(block, str(PAGE), "exec"), found)
        return found
    finally:
        os.chdir(here)


def test_three_lines_render_an_image():
    assert len([line for line in blocks()[0].splitlines() if line.strip()]) == 3


def test_the_page_does_what_it_says(names):
    assert names["image"].shape == (180, 320, 3) and 0 <= names["image"].min() <= names["image"].max() <= 1
    assert names["small"]["rgb"].shape == (9, 12, 3) and set(names["small"]) == {"rgb", "depth", "accumulation", "mask"}
    assert abs(names["loss"]) < 0.5
    files = {path.name for path in names["FOLDER"].iterdir()}
    assert {"frame.png", "spiral-rgb.mp4", "spiral-depth.mp4", "cloud.ply", "first.safetensors"} <= files
    assert names["run"].step == 2 and (names["FOLDER"] / "runs" / "library" / "config.toml").is_file()

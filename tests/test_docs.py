"""Documentation that can be checked by a machine."""

import importlib
import importlib.util
import json
import re
import runpy
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import typer.main

from msth_taichi import __all__ as public_names
from msth_taichi.cli import app
from msth_taichi.config import DataConfig, load_preset
from msth_taichi.errors import DataError

ROOT = Path(__file__).parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")})


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as the site and code forges make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def commands(page: Path, program: str) -> list[list[str]]:
    """The words of each command in a page that starts with `program`, up to a comment."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(rf"^ {{4,}}(?:.* && )?({re.escape(program)} .*)$", text, flags=re.M)
    return [shlex.split(line, comments=True) for line in lines]


def test_configuration_page_is_current():
    script = runpy.run_path(str(ROOT / "scripts" / "write_configuration.py"))
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == script["page"](), "run python scripts/write_configuration.py"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", prose(page)):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


def test_every_page_is_reached_from_the_readme():
    pages = set(re.findall(r"\]\((docs/[^)#]+\.md)", (ROOT / "README.md").read_text()))
    apart = {"docs/index.md", "docs/datasets/moving.md", "docs/datasets/multiview.md"}
    assert pages | apart == {name(page) for page in PAGES if name(page).startswith("docs/")}


def test_library_examples_use_names_that_exist():
    used = {name for page in PAGES for name in re.findall(r"\bmsth\.(\w+)\(", page.read_text())}
    assert used and used <= set(public_names)


def test_commands_have_the_options_that_they_are_shown_with():
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = 0
    for page in PAGES:
        for _, verb, *words in commands(page, "msth"):
            if verb.startswith("-") or not verb.islower():  # msth --debug VERB
                continue
            where = f"{name(page)}: msth {verb}"
            assert verb in verbs, where
            known = {option for parameter in verbs[verb].params for option in (*parameter.opts, "--help")}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, where
            after = dict(pairwise(words))
            settings = [value for word, value in pairwise(words) if word == "--set"]
            if "section.key=value" not in settings and (settings or "--preset" in after):
                load_preset(after.get("--preset", "multiview"), settings)
            seen += 1
    assert seen > 50


def test_scripts_are_there_with_the_options_that_they_are_shown_with():
    for page in PAGES:
        for _, script, *words in commands(page, "python"):
            if not script.endswith(".py"):
                continue
            source = (ROOT / script).read_text() + (ROOT / "scripts" / "conversion.py").read_text()
            for option in (word for word in words if word.startswith("--") and word not in ("--help", "--overwrite")):
                stem = option.removeprefix("--").replace("-", "_")
                assert re.search(rf"\b{stem}: |\"{option}\"", source), f"{name(page)}: {script} {option}"


def listings(page: Path) -> dict[str, str]:
    """Code with a title, by its title."""
    found = re.findall(r'^( *)```python title="([^"]+)"\n(.*?)^\1```', page.read_text(), flags=re.M | re.S)
    return {title: re.sub(rf"^{indent}", "", code, flags=re.M) for indent, title, code in found}


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Import a listing of docs/extending.md as the module that it is to be."""

    def load(title: str):
        file = tmp_path / title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(listings(ROOT / "docs" / "extending.md")[title])
        package = "" if title.startswith("tests") else "msth_taichi."
        module_name = package + title.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module_name, module)
        parent, _, child = module_name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(parent), child, module, raising=False)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_operator_of_the_extending_page_passes_its_tests(extension):
    for title in ("reference/window.py", "kernels/window.py", "ops/window.py"):
        extension(title)
    tests = extension("tests/ops/test_window.py")
    device = torch.device("cpu")
    for count in (0, 7):
        tests.test_matches_reference(device, count)
    tests.test_safe_under_autograd(device)
    tests.test_typed_errors(device)


def test_the_format_of_the_extending_page_reads_a_rig(extension, tmp_path):
    rig = extension("scene/formats/rig.py")
    folder = tmp_path / "rig"
    folder.mkdir()
    assert not rig.detects(folder)
    entries = []
    for k, camera in enumerate(("left", "middle", "right")):
        pose = np.eye(4)
        pose[0, 3] = -k
        entries.append({"name": camera, "focal": 40, "world_to_camera": pose.tolist()})
        iio.imwrite(folder / f"{camera}.mp4", np.full((3, 16, 32, 3), 80 * k, np.uint8), plugin="pyav", codec="h264")
    (folder / "rig.json").write_text(json.dumps(entries))
    assert rig.detects(folder)
    scene = rig.load(folder, DataConfig())
    assert scene.cameras.names == ("left", "middle", "right") and scene.num_frames == 3
    assert len(scene.images("train")) == 6 and len(scene.images("test")) == 3
    for wrong in ([], [{}, {}], [*entries[:2], entries[2] | {"focal": 0}]):
        (folder / "rig.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"rig\.json"):
            rig.load(folder, DataConfig())

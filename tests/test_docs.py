"""Documentation that can be checked by a machine."""

import re
import runpy
from pathlib import Path

import pytest

from msth_taichi import __all__ as public_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_configuration_page_is_current():
    script = runpy.run_path(str(ROOT / "scripts" / "write_configuration.py"))
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == script["page"](), "run python scripts/write_configuration.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_library_examples_use_names_that_exist():
    used = {name for page in PAGES for name in re.findall(r"\bmsth\.(\w+)\(", page.read_text())}
    assert used and used <= set(public_names)

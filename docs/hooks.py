"""Pages of the site that lie beside docs/: they keep their paths, and links are turned so that they lead there.

Links are written as they lead on disk: `../CONTRIBUTING.md` from docs/, `docs/method.md` from beside it. A link to what
is no page, such as source code, becomes its text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")
CITED = "benchmarks/results/**/*.md"  # linked where they are cited, not in the navigation
LINK = re.compile(r"(?<!!)\[([^]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for path in [*(ROOT / name for name in BESIDE), *sorted(ROOT.glob(CITED))]:
        file = File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        if file.src_uri not in BESIDE:
            file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Turn the links that lead out of docs/, or into it."""
    uri = page.file.src_uri
    on_disk = uri if page.file.generated_by else f"docs/{uri}"

    def turned(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(on_disk), target))
        if files.get_file_from_path(there := goal.removeprefix("docs/")):
            return f"[{text}]({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{anchor or ''})"
        return text if (ROOT / goal).exists() else link.group()

    return LINK.sub(turned, markdown)

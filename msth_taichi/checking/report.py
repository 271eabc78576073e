"""Findings as lines of text, and as one HTML page that needs nothing else: no scripts, pictures inside."""

import html
from collections.abc import Sequence

from PIL import Image

from msth_taichi.checking.findings import Finding
from msth_taichi.pages import page, picture

_ORDER = ("error", "warning", "ok")

_STYLE = """
.level { font-weight: 600; white-space: nowrap; } .do { margin-top: .3em; }
.error { color: light-dark(#b3261e, #f2867f); } .warning { color: light-dark(#9a5b00, #e0a040); }
.ok { color: light-dark(#2d6a33, #7cc285); }
"""


def summary(findings: Sequence[Finding]) -> str:
    """How many of each, in words."""
    count = {level: sum(finding.level == level for finding in findings) for level in _ORDER}
    parts = [f"{count[level]} {level}{'s' if count[level] != 1 else ''}" for level in _ORDER[:2]]
    return ", ".join(parts)


def text_report(findings: Sequence[Finding]) -> list[str]:
    """Worst first."""
    return [finding.line() for finding in _sorted(findings)] + [summary(findings)]


def html_report(name: str, findings: Sequence[Finding], pictures: Sequence[tuple[str, Image.Image]]) -> str:
    """The page.

    Args:
        name: of the data set.
        findings: in any order.
        pictures: titles and pictures, in the order of the page.
    """
    rows = "\n".join(_row(finding) for finding in _sorted(findings))
    shown = (f"<h2>{html.escape(heading)}</h2>\n{picture(heading, image)}" for heading, image in pictures)
    return page(f"{name}: {summary(findings)}", [f"<table>\n{rows}\n</table>", *shown], _STYLE)


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _ORDER.index(finding.level))


def _row(finding: Finding) -> str:
    remedy = f'<div class="do"><b>To do:</b> {html.escape(finding.remedy)}.</div>' if finding.remedy else ""
    return (
        f'<tr><td class="level {finding.level}">{finding.level}</td><td>{finding.check}</td>'
        f"<td><b>{html.escape(finding.title)}</b><br>{html.escape(finding.measured)}.{remedy}</td></tr>"
    )

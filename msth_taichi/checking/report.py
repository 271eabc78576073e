"""Findings as lines of text, and as one HTML page that needs nothing else: no scripts, pictures inside."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from msth_taichi.checking.findings import Finding

_ORDER = ("error", "warning", "ok")

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1140px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; } td { vertical-align: top; padding: .5em .6em;
border-top: 1px solid #ddd; } img { max-width: 100%; } .level { font-weight: 600; white-space: nowrap; }
.error { color: #b3261e; } .warning { color: #9a5b00; } .ok { color: #2d6a33; } .do { margin-top: .3em; }
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
    title = html.escape(f"{name}: {summary(findings)}")
    rows = "\n".join(_row(finding) for finding in _sorted(findings))
    shown = "\n".join(
        f'<h2>{html.escape(heading)}</h2>\n<img alt="{html.escape(heading)}" src="{_inline(picture)}">'
        for heading, picture in pictures
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<table>\n{rows}\n</table>\n{shown}\n</body></html>\n"
    )


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _ORDER.index(finding.level))


def _row(finding: Finding) -> str:
    remedy = f'<div class="do"><b>To do:</b> {html.escape(finding.remedy)}.</div>' if finding.remedy else ""
    return (
        f'<tr><td class="level {finding.level}">{finding.level}</td><td>{finding.check}</td>'
        f"<td><b>{html.escape(finding.title)}</b><br>{html.escape(finding.measured)}.{remedy}</td></tr>"
    )


def _inline(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    # photographs as JPEG, drawings as PNG: they have few colours
    drawing = picture.getcolors(4096) is not None
    picture.save(buffer, "PNG" if drawing else "JPEG", **({"optimize": True} if drawing else {"quality": 82}))
    kind = "png" if drawing else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

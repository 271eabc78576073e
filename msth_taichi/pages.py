"""HTML pages that need nothing else: no scripts, pictures inside, readable on light and dark screens."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

from PIL import Image

_WIDTH = 1600  # pixels that a picture has at most

# drawings are made on white: on dark screens their lightness is turned around, and hues stay
_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ddd; --pale: #666; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #161616; --line: #3a3a3a; --pale: #999; }
.drawing, svg { filter: invert(.915) hue-rotate(180deg); } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1140px;
margin: 2em auto; padding: 0 1em; } h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; } td, th { vertical-align: top; text-align: left; padding: .35em .6em;
border-top: 1px solid var(--line); } img, svg { max-width: 100%; height: auto; }
figure { margin: 1em 0; } figure img { width: 100%; } figcaption { color: var(--pale); }
pre { overflow-x: auto; font-size: 13px; } summary { cursor: pointer; }
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole page.

    Args:
        title: plain text, also the heading.
        body: HTML, one part after the other.
        style: CSS beside that of every page.

    Example:
        >>> page("a < b", ["<p>It is.</p>"])[:15]
        '<!doctype html>'
    """
    name = html.escape(title)
    parts = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}{style}</style></head>\n<body>\n<h1>{name}</h1>\n{parts}\n</body></html>\n"
    )


def picture(title: str, image: Image.Image, drawing: bool = False) -> str:
    """A picture with its bytes inside, made narrower where it is very wide; JPEG, or PNG where it has few colours.

    Args:
        title: plain text that stands in for it.
        image: RGB.
        drawing: made on white paper, which a dark screen may turn dark.
    """
    few = image.getcolors(4096) is not None
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if few else "JPEG", **({"optimize": True} if few else {"quality": 82}))
    kind, look = "png" if few else "jpeg", ' class="drawing"' if drawing else ""
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img{look} alt="{html.escape(title)}" src="data:image/{kind};base64,{data}">'


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Rows of plain text, under column names if there are any.

    Example:
        >>> table([["steps", "100"]])
        '<table>\\n<tr><td>steps</td><td>100</td></tr>\\n</table>'
    """
    lines = [_row(head, "th")] if head else []
    return "\n".join(["<table>", *lines, *(_row(row, "td") for row in rows), "</table>"])


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

"""Curves as an SVG: text that every browser shows, without a library for plotting."""

import html
import math
from collections.abc import Mapping, Sequence

Point = tuple[float, float]

SHOWN = 16
"""Curves with a line in the legend; the others are drawn, and counted there."""

# Okabe and Ito, "Color universal design": told apart by colour-blind readers too; their yellow is too light for lines
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("", "6 3", "2 2")  # another look for each time the colours repeat
_LEFT, _TOP, _WIDTH, _HEIGHT, _BOTTOM, _LEGEND = 64, 34, 640, 300, 48, 190
_MARKED = 60  # points of a curve up to which each gets a dot
_NAME = 20  # letters of a legend's line


def curves_svg(
    title: str, x_label: str, y_label: str, curves: Mapping[str, Sequence[Point]], logarithmic: bool = False
) -> str:
    """Lines through points, with axes, ticks and a legend.

    Args:
        title: above.
        x_label: what runs to the right.
        y_label: what runs up, with its unit.
        curves: name -> (x, y) in the order of x; at least one point altogether.
        logarithmic: even steps upwards are even factors; values are above 0.
    Returns:
        An SVG document.

    Example:
        >>> curves_svg("PSNR", "frame", "dB", {"cam00": [(0, 30.1), (10, 29.8)]})[:4]
        '<svg'
    """
    if logarithmic:
        curves = {name: [(x, math.log10(y)) for x, y in curve] for name, curve in curves.items()}
    points = [point for curve in curves.values() for point in curve]
    x_ticks, y_ticks = (ticks(min(values), max(values)) for values in zip(*points, strict=True))

    def place(x: float, y: float) -> tuple[float, float]:
        along = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _LEFT + along * _WIDTH, _TOP + (1 - up) * _HEIGHT

    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + _BOTTOM
    middle, base = _LEFT + _WIDTH / 2, _TOP + _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{middle}" y="20" text-anchor="middle" font-size="14">{html.escape(title)}</text>',
        f'<text x="{middle}" y="{height - 10}" text-anchor="middle">{html.escape(x_label)}</text>',
        f'<text transform="translate(16 {_TOP + _HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>",
    ]
    for value in x_ticks:
        x, _ = place(value, y_ticks[0])
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{base}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{value:g}</text>')
    for value in y_ticks:
        _, y = place(x_ticks[0], value)
        label = f"{10**value:.2g}" if logarithmic else f"{value:g}"
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDTH}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for index, (name, curve) in enumerate(curves.items()):
        color, dash = _COLORS[index % len(_COLORS)], _DASHES[index // len(_COLORS) % len(_DASHES)]
        style = f'fill="none" stroke="{color}" stroke-width="1.5" stroke-dasharray="{dash}"'
        placed = [place(*point) for point in curve]
        parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}" {style}/>')
        if len(curve) <= _MARKED:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{color}"/>' for x, y in placed]
        if index < SHOWN:
            left, y = _LEFT + _WIDTH + 14, _TOP + 8 + 17 * index
            parts.append(f'<polyline points="{left},{y} {left + 22},{y}" {style}/>')
            parts.append(f'<text x="{left + 28}" y="{y + 4}">{html.escape(_shortened(name))}</text>')
    if len(curves) > SHOWN:
        y = _TOP + 12 + 17 * SHOWN
        parts.append(f'<text x="{_LEFT + _WIDTH + 14}" y="{y}">and {len(curves) - SHOWN} more</text>')
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers in even steps, the first at or below `low`, the last at or above `high`.

    Example:
        >>> ticks(27.3, 31.8)
        [27.0, 28.0, 29.0, 30.0, 31.0, 32.0]
    """
    high = high if high > low else low + 1
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def _shortened(name: str) -> str:
    """Names of one data set differ at their end."""
    return name if len(name) <= _NAME else "…" + name[1 - _NAME :]

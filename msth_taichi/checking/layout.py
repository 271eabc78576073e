"""A picture of the cameras from above and from the side, drawn with pillow.

Letters: C cameras, N points.
"""

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from msth_taichi.checking.geometry import directions
from msth_taichi.scene.cameras import Cameras

SIZE = 700
"""Pixels of a view's edge."""

_MARGIN = 30
_PAPER, _INK, _PALE = (255, 255, 255), (40, 40, 40), (205, 205, 205)
_TRAIN, _OTHER, _BAD = (31, 92, 160), (214, 128, 20), (200, 30, 30)
_NAMED = 48  # cameras up to which all are named

# columns of the world's axes that are drawn to the right and up
_VIEWS = (("from above (x right, y up)", 0, 1, "x", "y"), ("from the side (x right, z up)", 0, 2, "x", "z"))


def draw_layout(
    cameras: Cameras,
    box: float,
    held_out: Collection[int] = (),
    bad: Collection[str] = (),
    meeting: np.ndarray | None = None,
) -> Image.Image:
    """Two orthographic views in scene units: positions, viewing directions, frusta and the scene box.

    Args:
        cameras: C cameras.
        box: half edge of the scene box.
        held_out: cameras that do not train, drawn in orange.
        bad: names of cameras to draw in red.
        meeting: (3,) the point that all look at.
    """
    poses = cameras.camera_to_world.double().numpy()
    position = poses[:, :, 3]
    usual = np.linalg.norm(position - np.median(position, 0), axis=1)
    length = 0.18 * max(float(np.median(usual)), 0.05)
    frusta = [poses[i, :, 3] + _corners(cameras, i) * length @ poses[i, :, :3].T for i in range(len(cameras))]
    reach = 1.08 * max(box, float(np.abs(np.concatenate([position, *frusta])).max()))
    picture = Image.new("RGB", (2 * SIZE, SIZE + 26), _PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    for panel, (title, across, up, right_name, up_name) in enumerate(_VIEWS):
        origin = np.array([panel * SIZE + SIZE / 2, SIZE / 2])

        def place(points: np.ndarray, across: int = across, up: int = up, origin: np.ndarray = origin) -> np.ndarray:
            flat = np.stack([points[..., across], -points[..., up]], -1)
            return origin + flat * (SIZE / 2 - _MARGIN) / reach

        _draw_box(draw, place, box, font)
        _draw_axes(draw, place, reach, across, up, (right_name, up_name), font)
        if meeting is not None and np.abs(meeting).max() < reach:
            x, y = place(meeting)
            draw.line([(x - 6, y), (x + 6, y)], _INK, 2)
            draw.line([(x, y - 6), (x, y + 6)], _INK, 2)
        for i, name in enumerate(cameras.names):
            color = _BAD if name in bad else _OTHER if i in held_out else _TRAIN
            _draw_camera(draw, place, position[i], frusta[i], color)
            if len(cameras) <= _NAMED or name in bad:
                x, y = place(position[i])
                draw.text((x + 5, y - 6), name[-12:], color, font, stroke_width=2, stroke_fill=_PAPER)
        draw.text((panel * SIZE + 10, 6), title, _INK, font)
    _draw_legend(draw, bool(bad), meeting is not None, font)
    return picture


def _corners(cameras: Cameras, i: int) -> np.ndarray:
    """(4, 3) directions to the corners of the image, of one depth where that means something."""
    width, height = cameras.size(i)
    pixels = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    local = directions(cameras, i, pixels)
    return local / np.maximum(-local[:, 2:], 0.5)


def _draw_camera(draw, place, position: np.ndarray, frustum: np.ndarray, color: tuple[int, int, int]) -> None:
    centre, corners = tuple(place(position)), [tuple(point) for point in place(frustum)]
    for k, corner in enumerate(corners):
        draw.line([centre, corner], color, 1)
        draw.line([corner, corners[k - 1]], color, 1)
    draw.line([centre, tuple(place(frustum.mean(0)))], color, 2)
    x, y = centre
    draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=color)


def _draw_box(draw, place, box: float, font) -> None:
    low, high = place(np.full(3, -box)), place(np.full(3, box))
    draw.rectangle([low[0], high[1], high[0], low[1]], outline=_PALE, width=2)
    draw.text((low[0] + 4, high[1] + 3), f"scene box, half edge {box:g}", (150, 150, 150), font)


def _draw_axes(draw, place, reach: float, across: int, up: int, names: Sequence[str], font) -> None:
    for axis, name in ((across, names[0]), (up, names[1])):
        end = np.zeros(3)
        end[axis] = 0.98 * reach
        x, y = place(end)
        draw.line([tuple(place(-end)), (x, y)], (232, 232, 232), 1)
        draw.text((x - 4, y - 14), name, _INK, font)


def _draw_legend(draw, bad: bool, meeting: bool, font) -> None:
    entries = [("training camera", _TRAIN), ("held-out camera", _OTHER)]
    entries += [("camera with an error", _BAD)] if bad else []
    entries += [("+ where the optical axes meet", _INK)] if meeting else []
    x = 10
    for text, color in entries:
        draw.rectangle([x, SIZE + 8, x + 10, SIZE + 18], fill=color)
        draw.text((x + 16, SIZE + 5), text, _INK, font)
        x += 30 + int(draw.textlength(text, font))


def contact_sheet(pictures: Sequence[np.ndarray], names: Sequence[str], width: int = 150) -> Image.Image:
    """Small pictures (H, W, 3) uint8 with their names."""
    cells = [Image.fromarray(p).resize((width, max(round(width * p.shape[0] / p.shape[1]), 1))) for p in pictures]
    columns = min(max(1120 // (width + 6), 1), max(len(cells), 1))
    height = max((cell.height for cell in cells), default=1) + 20
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + 6), max(rows * height, 1)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for k, (cell, name) in enumerate(zip(cells, names, strict=True)):
        x, y = k % columns * (width + 6), k // columns * height
        sheet.paste(cell, (x, y))
        draw.text((x + 2, y + cell.height + 2), name[-24:], _INK, font)
    return sheet

"""Pictures of an evaluation: the first frame of each camera, and the frame of each view that came out worst."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msth_taichi.evaluation.comparison import comparison_panels, target_image
from msth_taichi.rendering.pictures import depth_range
from msth_taichi.rendering.writers import mosaic, save_image
from msth_taichi.scene.sources import IMAGE_SUFFIXES

MOSAICS = 8
"""Pictures of either kind at most."""

Output = Mapping[str, torch.Tensor]
"""Of `render_image`."""


@dataclass
class _Seen:
    """An image that was compared: its scores, render and frame."""

    scores: dict[str, Any]
    output: Output
    frame: np.ndarray


class Gallery:
    """Ground truth, render, error times 4, mask and depth of chosen images, chosen while they come.

    Args:
        background: `rays.behind`.
        masked: whether the last channel of a frame says which pixels count.
    """

    def __init__(self, background: str, masked: bool):
        self._background, self._masked = background, masked
        self._first: dict[str, np.ndarray] = {}
        self._worst: list[tuple[dict[str, Any], np.ndarray]] = []
        self._candidate: _Seen | None = None

    def look(self, scores: dict[str, Any], output: Output, frame: np.ndarray) -> None:
        """Consider an image of the view at hand."""
        seen = _Seen(scores, output, frame)
        if scores["name"] not in self._first and len(self._first) < MOSAICS:
            self._first[scores["name"]] = self._mosaic(seen)
        if self._candidate is None or scores["psnr"] < self._candidate.scores["psnr"]:
            self._candidate = seen

    def end_view(self) -> None:
        """The worst image of the view at hand is known, and kept if it is among the worst of all."""
        assert self._candidate is not None, "a view has an image"
        scores = {key: self._candidate.scores[key] for key in ("name", "frame", "psnr")}
        self._worst.append((scores, self._mosaic(self._candidate)))
        self._worst = sorted(self._worst, key=lambda entry: entry[0]["psnr"])[:MOSAICS]
        self._candidate = None

    def write(self, folder: Path) -> dict[str, Any]:
        """Save all as `NAME.png` and `worst/NAME-FRAME.png`; worst frames of an earlier evaluation are removed.

        Returns:
            "first": camera -> file; "worst": name, frame, psnr and file of each, the worst first. Files are named
            as seen from beside the folder.
        """
        first = {name: f"{folder.name}/{_file_stem(name)}.png" for name in self._first}
        worst = [
            {**scores, "file": f"{folder.name}/worst/{_file_stem(scores['name'])}-{scores['frame']:05d}.png"}
            for scores, _ in self._worst
        ]
        files = [*first.values(), *(entry["file"] for entry in worst)]
        pictures = [*self._first.values(), *(picture for _, picture in self._worst)]
        for file, picture in zip(files, pictures, strict=True):
            save_image(folder.parent / file, picture)
        for old in (folder / "worst").glob("*.png"):
            if f"{folder.name}/worst/{old.name}" not in files:
                old.unlink()
        return {"first": first, "worst": worst}

    def _mosaic(self, seen: _Seen) -> np.ndarray:
        target = target_image(seen.frame, self._background, seen.output["rgb"], self._masked)
        return mosaic(comparison_panels(seen.output, target, depth_range(seen.output), error=True))


def _file_stem(name: str) -> str:
    """A camera's name as a file's: images/000.jpg becomes images_000."""
    path = Path(name)
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).replace("/", "_")

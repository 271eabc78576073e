"""What exports have in common."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.training.run import Run


@dataclass
class Ply:
    """What a file holds: positions, normals (K, 3), colors (K, 3) uint8, triangles (T, 3)."""

    positions: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    triangles: np.ndarray | None


def read_ply(path: Path) -> Ply:
    """By the header alone, as another program would."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode().split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    counts = {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith("element")}
    properties = [line.split()[1:] for line in lines if line.startswith("property") and "list" not in line]
    types = {"float": "<f4", "uchar": "u1"}
    rows = np.frombuffer(body, [(name, types[kind]) for kind, name in properties], counts["vertex"])
    triangles = None
    if "face" in counts:
        assert "property list uchar int vertex_indices" in lines
        faces = np.frombuffer(body[rows.nbytes :], [("count", "u1"), ("rows", "<i4", 3)])
        assert len(faces) == counts["face"] and (faces["count"] == 3).all()
        triangles = faces["rows"]
    else:
        assert len(body) == rows.nbytes
    columns = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
    return Ply(*(np.stack([rows[name] for name in names], 1) for names in columns), triangles)


TRANSFORM = SceneTransform(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([3.0, 2, 1]), 0.5)
"""From the user's coordinates to the scene's, unlike any symmetry of the room."""


@pytest.fixture
def wall_run(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose renders show a wall at y = 0.5, red below z = 0 and green above, and nothing beyond |x| > 0.8."""

    def render(self, cameras, index, time, *, mode="full", chunk=None):
        from msth_taichi.model.rays import camera_rays

        width, height = cameras.size(index)
        row, column = (x.flatten() for x in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
        rays = camera_rays(cameras, torch.full_like(row, index), row, column, torch.zeros(len(row)), 0, 1)
        depth = (0.5 - rays.origins[:, 1]) / rays.directions[:, 1]
        x, _, z = (rays.origins + depth[:, None] * rays.directions).unbind(1)
        seen = (depth > 0) & (x.abs() < 0.8) if mode != "dynamic" else torch.zeros_like(depth).bool()
        seen &= (row != height // 2) | (column != width // 2)  # a ray that meets nothing, among others that do
        color = torch.where(z[:, None] < 0, torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
        image = {
            "rgb": color,
            "depth": torch.where(seen, depth, 9.0),
            "accumulation": seen.float(),
            "mask": seen.float(),
        }
        return {name: values.view(height, width, *values.shape[1:]) for name, values in image.items()}

    monkeypatch.setattr("msth_taichi.rendering.fast.FastRenderer.image", render)
    return replace(tiny_run, scene=replace(tiny_run.scene, transform=TRANSFORM))

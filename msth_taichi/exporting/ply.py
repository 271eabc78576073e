"""Points and triangles as PLY files, binary little endian, which every mesh program reads.

Letters: K vertices, T triangles.
"""

from pathlib import Path

import numpy as np

from msth_taichi.files import replacing

_VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [(name, "u1") for name in ("red", "green", "blue")]
)
_TRIANGLE = np.dtype([("count", "u1"), ("vertices", "<i4", 3)])
_TYPES = {"<f4": "float", "|u1": "uchar"}


def write_ply(
    path: Path, points: np.ndarray, normals: np.ndarray, colors: np.ndarray, triangles: np.ndarray | None = None
) -> None:
    """Write points, or a mesh.

    Args:
        path: an existing file is replaced.
        points: (K, 3).
        normals: (K, 3) unit.
        colors: (K, 3) in [0, 1].
        triangles: (T, 3) rows of `points`, counter-clockwise seen from outside; None for points alone.
    Raises:
        RunError: the path cannot be written.
    Source: Turk 1994, "The PLY Polygon File Format".

    Example:
        >>> write_ply(Path("one.ply"), np.zeros((1, 3)), np.array([[0, 0, 1]]), np.ones((1, 3)))
    """
    vertices = np.empty(len(points), _VERTEX)
    for names, values in ((("x", "y", "z"), points), (("nx", "ny", "nz"), normals)):
        for axis, name in enumerate(names):
            vertices[name] = values[:, axis]
    for axis, name in enumerate(("red", "green", "blue")):
        vertices[name] = (colors[:, axis].clip(0, 1) * 255 + 0.5).astype(np.uint8)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {_TYPES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    parts = [vertices.tobytes()]
    if triangles is not None:
        faces = np.empty(len(triangles), _TRIANGLE)
        faces["count"], faces["vertices"] = 3, triangles
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        parts.append(faces.tobytes())
    text = "\n".join([*header, "end_header", ""])
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join([text.encode(), *parts]))

"""Folders as Nerfies' code writes them, of what the built-in scene's moving camera sees."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from msth_taichi.lenses import OPENCV
from msth_taichi.scene.sources import shrink
from tests.scene.rig import Rig

CENTER, SCALE, NEAR, FAR = [0.3, -0.2, 0.1], 0.25, 0.05, 0.75


def write_nerfies(
    folder: Path,
    rig: Rig,
    names: Sequence[str],
    train: Sequence[int],
    val: Sequence[int],
    scales: Sequence[int] = (1, 2),
) -> Path:
    """dataset.json, metadata.json, scene.json, camera/ and rgb/ of views that see one time each."""
    write(
        folder / "dataset.json",
        {
            "count": len(names),
            "num_exemplars": len(train),
            "ids": list(names),
            "train_ids": [names[v] for v in train],
            "val_ids": [names[v] for v in val],
        },
    )
    write(
        folder / "metadata.json",
        {name: {"warp_id": k, "appearance_id": k, "camera_id": k % 2} for k, name in enumerate(names)},
    )
    write(folder / "scene.json", {"scale": SCALE, "center": CENTER, "near": NEAR, "far": FAR})
    for v, name in enumerate(names):
        write(folder / "camera" / f"{name}.json", camera(rig, v))
        for scale in scales:
            path = folder / "rgb" / f"{scale}x" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(path, shrink(rig.frames[v, 0], scale))
    return folder


def camera(rig: Rig, v: int) -> dict[str, Any]:
    """World-to-camera rotation with y down and z forward, and the camera's place."""
    view = rig.views[v]
    fx, fy, cx, cy = view.intrinsics
    k1, k2, k3, _, _, _, p1, p2 = view.distortion
    return {
        "orientation": (view.pose[:, :3] * [1, -1, -1]).T.tolist(),
        "position": view.pose[:, 3].tolist(),
        "focal_length": fx,
        "principal_point": [cx, cy],
        "skew": 0.0,
        "pixel_aspect_ratio": fy / fx,
        "radial_distortion": [k1, k2, k3],
        "tangential_distortion": [p1, p2],
        "image_size": [view.width, view.height],
    }


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=4))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def distorted(rig: Rig) -> Rig:
    """The same pictures through lenses that bend them; only rays are compared."""
    bent = (0.05, -0.02, 0.01, 0.0, 0.0, 0.0, 0.002, -0.001)
    views = [
        replace(
            view, lens=OPENCV, distortion=bent, intrinsics=tuple(np.array(view.intrinsics) * [1.0, 1.1, 1.05, 0.95])
        )
        for view in rig.views
    ]
    return replace(rig, views=views)

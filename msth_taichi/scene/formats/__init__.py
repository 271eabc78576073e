"""One module per format on disk, each with `detects(folder) -> bool` and `load(folder, config) -> Scene`."""

from msth_taichi.scene.formats import (
    campus,
    colmap,
    dnerf,
    dycheck,
    dynamic3dgs,
    hypernerf,
    images,
    immersive,
    multiview,
    n3v,
    nerf_synthetic,
    technicolor,
)

FORMATS = (
    campus,
    multiview,
    dnerf,
    nerf_synthetic,
    images,
    n3v,
    immersive,
    technicolor,
    dynamic3dgs,
    dycheck,
    hypernerf,
    colmap,
)
"""In the order in which they are tried. A folder matches at most one, but Campus is multi-view video too."""

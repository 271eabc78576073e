"""One module per format on disk, each with `detects(folder) -> bool` and `load(folder, config) -> Scene`."""

from msth_taichi.scene.formats import (
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

FORMATS = (multiview, dnerf, nerf_synthetic, images, n3v, immersive, technicolor, dynamic3dgs, dycheck, hypernerf)
"""In the order in which they are tried; each json matches at most one."""

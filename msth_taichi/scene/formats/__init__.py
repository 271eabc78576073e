"""One module per format on disk, each with `detects(folder) -> bool` and `load(folder, config) -> Scene`."""

from msth_taichi.scene.formats import dnerf, dynamic3dgs, images, immersive, multiview, n3v, technicolor

FORMATS = (multiview, dnerf, images, n3v, immersive, technicolor, dynamic3dgs)
"""In the order in which they are tried; each json matches at most one."""

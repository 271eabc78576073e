"""What was compared, and by which definitions: without both, numbers of two evaluations cannot be compared.

Published figures of one method differ by their SSIM convention, choice of frames or near plane alone.
"""

from collections.abc import Mapping
from typing import Any

from msth_taichi.evaluation.motion import DYNAMIC_VARIANCE
from msth_taichi.evaluation.perceptual import SMALLEST
from msth_taichi.evaluation.surfaces import MOVES
from msth_taichi.scene.scene import Scene
from msth_taichi.training.record import device_name, versions
from msth_taichi.training.run import Run

DEFINITIONS = {
    "psnr": "10 log10(1 / MSE) per image, then the mean; psnr_pooled is of the mean MSE",
    "ssim": "11 x 11 Gaussian, sigma 1.5, data range 1; ssim2: data range 2; ms_ssim: five scales",
    "d_ssim": "(1 - ssim) / 2; d_ssim2: (1 - ssim2) / 2; d_ms_ssim: (1 - ms_ssim) / 2",
    "lpips": f"lpips 0.1 at full size, lpips_alex by AlexNet, lpips_vgg by VGG16; no value below {SMALLEST} pixels",
    "affine": "psnr_affine, ssim_affine: after one 3 x 4 affine colour matrix per view (per held-out camera; over all "
    "images where cameras move), fitted by least squares from its renders to its frames, then clamped to [0, 1]",
    "temporal": "psnr_temporal: PSNR of (render - render before) against (frame - frame before), over consecutive "
    "evaluated frames of a camera, which are `every` frames apart; none where cameras move",
    "dynamic": "psnr_dynamic: PSNR over the pixels of a camera whose temporal variance (of colours in [0, 1], mean "
    f"over red, green, blue) over its evaluated frames exceeds {DYNAMIC_VARIANCE:g}, mean over images; dynamic_pixels "
    "is their share; none where cameras move",
    "depth": "median depth of the render against the exact distance along the ray: mean over all pixels of |d - d'|, "
    "scene units, and of |d - d'| / d'; built-in scene only",
    "mask": f"iou: intersection over union of 'mask < {MOVES:g}' with what moves at that moment, over all pixels, of "
    "the field's mask at the exact point of the surface that the pixel centre sees; iou_rendered: of the mask as "
    "rendered; built-in scene only",
}


def protocol_of(
    run: Run, scene: Scene, split: str, every: int, views: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Data, views, frames, resolution, near plane, background, handling of colours, definitions, device, versions.

    Args:
        run: what was evaluated.
        scene: what it was compared with.
        split: of the scene.
        every: every n-th frame of a camera.
        views: name -> result of `ViewScores`.
    """
    rays = run.config.rays
    images = scene.images(split)
    sizes = scene.cameras.sizes[images.camera].unique(dim=0).tolist()
    numbers = sorted({frame["frame"] for view in views.values() for frame in view["frames"]})
    device = next(run.model.parameters()).device
    return {
        "data": scene.name,
        "split": split,
        "cameras": "static" if scene.static_cameras else "moving",
        "every": every,
        "views": list(views),
        "images": sum(len(view["frames"]) for view in views.values()),
        "frames": {"first": numbers[0], "last": numbers[-1], "count": len(numbers), "scene": scene.num_frames},
        "resolution": sizes[0] if len(sizes) == 1 else sizes,
        "near": rays.near_render or rays.near,
        "background": rays.behind,
        "color": "raw: sRGB values in [0, 1] as stored; renders clamped, no colour correction per camera",
        "ignored": "pixels that a mask leaves out are taken from the render" if images.masked else "none",
        **DEFINITIONS,
        "device": device_name(device),
        "versions": versions(),
    }

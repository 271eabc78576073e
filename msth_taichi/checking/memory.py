"""What a training will need, before it starts."""

import shutil
from pathlib import Path

import torch

from msth_taichi.checking.findings import Finding
from msth_taichi.config import Config
from msth_taichi.errors import DataError
from msth_taichi.scene.frame_cache import cache_folder
from msth_taichi.scene.frames import FrameStore, choose_tier
from msth_taichi.scene.scene import Scene

_GB = 1e9
_COPIES = 4  # of each parameter: itself, its gradient, and Adam's two moments
_FEATURES = 2  # per entry of a table


def memory_findings(scene: Scene, config: Config) -> list[Finding]:
    """Bytes of frames, parameters and optimiser, against what this machine has."""
    images = scene.images("train")
    frames = FrameStore.estimate(images, scene.cameras)
    model = 4 * _COPIES * parameters(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured = (
        f"{len(images):,} training frames take {frames / _GB:.2f} GB as bytes, parameters with gradients and Adam's "
        f"moments {model / _GB:.2f} GB; {_free(device)}"
    )
    try:
        tier = choose_tier(frames, device, config.data)
    except DataError as error:
        return [Finding("memory", "error", "the frames fit nowhere", f"{measured}; {error}", "raise data.downscale")]
    findings = []
    if device.type == "cuda" and model > torch.cuda.mem_get_info(device)[0]:
        remedy = "lower field.log2_static and field.log2_dynamic by one each"
        findings.append(Finding("memory", "error", "the model does not fit on the GPU", measured, remedy))
    elif tier == "disk":
        remedy = "raise data.downscale to keep frames in memory; a cache on a fast disk is nearly as good"
        title = f"frames will be kept on disk, in {cache_folder(config.data)}"
        findings.append(Finding("memory", "warning", title, measured, remedy))
    else:
        place = {"gpu": "on the GPU", "ram": "in RAM"}[tier]
        findings.append(Finding("memory", "ok", f"frames will be kept {place}", measured))
    return findings


def parameters(config: Config) -> int:
    """Entries of all tables and masks; the small networks count for nothing beside them."""
    count = 0
    for part in (config.field, *config.proposals):
        tables = 2**part.log2_static + 2**part.log2_dynamic
        count += part.levels * _FEATURES * tables + part.mask_resolution**3 * part.mask_times
    return count


def _free(device: torch.device) -> str:
    parts = []
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        parts.append(f"GPU: {free / _GB:.1f} of {total / _GB:.1f} GB free")
    else:
        parts.append("no GPU here")
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        parts.append(f"RAM: {int(lines['MemAvailable'].split()[0]) * 1024 / _GB:.1f} GB free")
    except (OSError, KeyError, ValueError):
        pass
    parts.append(f"disk here: {shutil.disk_usage(Path.cwd()).free / _GB:.1f} GB free")
    return ", ".join(parts)

"""Which pixels a training step looks at."""

from functools import partial

import torch

from msth_taichi.config import DataConfig, SamplerConfig
from msth_taichi.errors import ConfigError
from msth_taichi.sampling import importance
from msth_taichi.sampling.cells import Cells, finest_edge
from msth_taichi.sampling.error_map import ErrorMapSampler
from msth_taichi.sampling.importance import ImportanceSampler, importance_map
from msth_taichi.sampling.pixels import PixelBatch
from msth_taichi.sampling.sampler import Sampler
from msth_taichi.sampling.static_dynamic import StaticDynamicSampler
from msth_taichi.sampling.uniform import UniformSampler
from msth_taichi.sampling.weights import isg_weights, ist_weights
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.statistics import has_masks, temporal_variance
from msth_taichi.scene.statistics_cache import cached_statistics

__all__ = [
    "ErrorMapSampler",
    "ImportanceSampler",
    "PixelBatch",
    "Sampler",
    "StaticDynamicSampler",
    "UniformSampler",
    "make_sampler",
    "require_suited",
]


def make_sampler(
    scene: Scene,
    store: FrameStore,
    config: SamplerConfig,
    device: torch.device,
    generator: torch.Generator,
    *,
    data: DataConfig | None = None,
    progress: bool = False,
) -> Sampler:
    """The sampler of the training split that `config.kind` names.

    Args:
        scene: for its training images.
        store: the frames of the training images.
        config: the kind and its settings.
        device: where batches are made.
        generator: on `device`; all randomness comes from it.
        data: where statistics of the frames are kept between runs; None keeps none.
        progress: show a bar while frames are looked through.
    Raises:
        ConfigError: "static_dynamic" or "importance" for cameras that move or have one image each; a map that needs
            more than `map_memory`.

    Example:
        >>> sampler = make_sampler(scene, store, config.sampler, device, torch.Generator(device))
        >>> batch = sampler.sample(step=0, count=4096)
    """
    require_suited(scene, config)
    images = scene.images("train")
    if config.kind == "uniform":
        return UniformSampler(images, scene.cameras, device, generator)
    if config.kind == "error_map":
        return ErrorMapSampler(images, scene.cameras, config, device, generator)
    if config.kind == "importance":
        return _importance(scene, store, config, generator, data, progress)

    def variance() -> dict[str, torch.Tensor]:
        cameras, variances = temporal_variance(store, images)
        return {"cameras": cameras, **{f"variance/{u}": v for u, v in zip(cameras.tolist(), variances, strict=True)}}

    found = cached_statistics(store, images, {"kind": "variance"}, variance, data)
    dynamic = [found[f"variance/{u}"] > config.variance for u in found["cameras"].tolist()]
    return StaticDynamicSampler(images, found["cameras"], dynamic, config, device, generator)


def require_suited(scene: Scene, config: SamplerConfig) -> None:
    """Raise ConfigError if the sampler does not suit the scene; needs no frames."""
    if config.kind not in ("static_dynamic", "importance"):
        return
    if not scene.static_cameras:
        raise ConfigError(
            f"sampler.kind='{config.kind}' needs cameras that stand still, those of '{scene.name}' move; "
            "use sampler.kind='uniform' or 'error_map'"
        )
    if scene.images("train").camera.unique(return_counts=True)[1].min() < 2:
        raise ConfigError(f"sampler.kind='{config.kind}' needs two images or more of each camera; use 'uniform'")


def _importance(
    scene: Scene,
    store: FrameStore,
    config: SamplerConfig,
    generator: torch.Generator,
    data: DataConfig | None,
    progress: bool,
) -> ImportanceSampler:
    images, device = scene.images("train"), store.device
    masked = has_masks(images)
    weighers = {
        "isg": (partial(isg_weights, store), {"gamma": config.gamma, "frames": config.median_frames}),
        "ist": (partial(ist_weights, store), {"shift": config.shift, "floor": config.floor}),
    }
    names = config.weight.split("_")
    edge = finest_edge(store.sizes, importance.CELL_BYTES * len(names), config.map_memory)
    cells = Cells(store.sizes, edge, device)
    maps = []
    for name in names:
        weigh, settings = weighers[name]
        weigh = partial(weigh, masked=masked, **settings)
        found = cached_statistics(
            store,
            images,
            {"kind": name, "edge": edge, **settings},
            lambda weigh=weigh: {"map": importance_map(images, cells, weigh, progress)},
            data,
        )
        maps.append(found["map"])
    even = UniformSampler(images, scene.cameras, device, generator)
    return ImportanceSampler(cells, maps, even, config, generator)

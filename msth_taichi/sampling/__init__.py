"""Which pixels a training step looks at."""

import torch

from msth_taichi.config import SamplerConfig
from msth_taichi.errors import ConfigError
from msth_taichi.sampling.pixels import PixelBatch
from msth_taichi.sampling.static_dynamic import StaticDynamicSampler
from msth_taichi.sampling.uniform import UniformSampler
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.statistics import temporal_variance

Sampler = UniformSampler | StaticDynamicSampler

__all__ = ["PixelBatch", "Sampler", "StaticDynamicSampler", "UniformSampler", "make_sampler", "require_suited"]


def make_sampler(
    scene: Scene, store: FrameStore, config: SamplerConfig, device: torch.device, generator: torch.Generator
) -> Sampler:
    """The sampler of the training split that `config.kind` names.

    Args:
        scene: for its training images.
        store: the frames of the training images.
        config: kind, ratio, repeats, variance threshold.
        device: where batches are made.
        generator: on `device`; all randomness comes from it.
    Raises:
        ConfigError: "static_dynamic" for cameras that move.

    Example:
        >>> sampler = make_sampler(scene, store, config.sampler, device, torch.Generator(device))
        >>> batch = sampler.sample(step=0, count=4096)
    """
    require_suited(scene, config)
    images = scene.images("train")
    if config.kind == "uniform":
        return UniformSampler(images, scene.cameras, device, generator)
    cameras, variance = temporal_variance(store, images)
    return StaticDynamicSampler(images, cameras, [v > config.variance for v in variance], config, device, generator)


def require_suited(scene: Scene, config: SamplerConfig) -> None:
    """Raise ConfigError if `make_sampler` would; needs no frames."""
    if config.kind == "static_dynamic" and not scene.static_cameras:
        raise ConfigError(
            f"sampler.kind='static_dynamic' needs cameras that stand still, those of '{scene.name}' move; "
            "use sampler.kind='uniform'"
        )

"""LPIPS: how far apart the features are that networks trained on photographs see in two images.

The package `lpips` is an optional extra. Its networks' trunks are torchvision's, which downloads their weights when
they are first used; without a network they can be put into their place by hand.

Letters: H, W image size.
"""

import pickle
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from msth_taichi.errors import RunError

NETS = {"lpips_alex": "alex", "lpips_vgg": "vgg"}
"""Metric -> its network as the package calls it."""

SMALLEST = 32
"""Pixels along an edge of the smallest image on which every layer of both networks has a value."""

_WEIGHTS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights"}


def require_lpips() -> tuple[Any, Any]:
    """The packages lpips and torchvision.

    Raises:
        RunError: one is not installed, or does not fit the torch that is; says what to install.
    """
    try:
        return import_module("lpips"), import_module("torchvision")
    except ModuleNotFoundError as error:
        raise RunError(
            f"LPIPS: the package {error.name} is not installed; run: pip install 'msth_taichi[lpips]'"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision made for another torch, most often
        raise RunError(
            f"LPIPS: the packages cannot be loaded ({error}); install the torchvision that goes with torch "
            f"{torch.__version__}"
        ) from error


class Perceptual:
    """Both networks on a device.

        LPIPS = sum over layers of mean over pixels of w . (f(image) - f(target))^2,  f of unit length

    Args:
        device: where images will be.
    Raises:
        RunError: the package, or the weights of a network, cannot be had.
    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"; `lpips` 0.1.

    Example:
        >>> Perceptual(torch.device("cpu"))(image, image)
        {'lpips_alex': 0.0, 'lpips_vgg': 0.0}
    """

    def __init__(self, device: torch.device):
        self._networks = {name: _network(net).to(device) for name, net in NETS.items()}

    @torch.no_grad()
    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> dict[str, float | None]:
        """LPIPS by each network, 0 for equal images; None for images too small for them.

        Args:
            image: (H, W, 3) in [0, 1].
            target: (H, W, 3) in [0, 1].
        """
        if min(image.shape[:2]) < SMALLEST:
            return no_lpips()
        pair = [picture.float().permute(2, 0, 1)[None] for picture in (image, target)]
        return {name: float(network(*pair, normalize=True)) for name, network in self._networks.items()}


def no_lpips() -> dict[str, float | None]:
    """The same names without values."""
    return dict.fromkeys(NETS)


def _network(net: str) -> torch.nn.Module:
    lpips, torchvision = require_lpips()
    url = getattr(torchvision.models, _WEIGHTS[net]).DEFAULT.url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips asks torchvision for weights in the old way
            return lpips.LPIPS(net=net, verbose=False)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(
            f"LPIPS: the weights {folder / Path(url).name} are damaged or cannot be downloaded ({error}); "
            f"put {url} there"
        ) from error

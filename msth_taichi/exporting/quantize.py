"""Tables of floats in one byte a value.

Letters: L levels, F features per entry, E entries of all levels.
"""

import zlib
from collections.abc import Sequence

import torch

_LARGEST = 127  # codes are -127 to 127: as many above zero as below


def quantize(table: torch.Tensor, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers that stand for a table, each level and feature with a scale of its own.

        code = round(value / scale)        scale = max |value| / 127

    Zero stays zero, which matters: most entries of a trained table were never moved far from it, and a sum of many
    that are all off shows. Nothing is clipped either: the few largest entries are surfaces.

    Args:
        table: (E, F) float32.
        rows: (L,) entries of each level; their sum is E.
    Returns:
        codes (E, F) int8, scales (L, F) float32.

    Example:
        >>> codes, scales = quantize(torch.tensor([[0.5], [-1.0], [0.0]]), [3])
        >>> codes.flatten().tolist()
        [64, -127, 0]
    """
    levels = table.split(list(rows))
    scales = torch.stack([level.abs().amax(0) for level in levels]) / _LARGEST
    steps = torch.where(scales > 0, scales, 1.0)
    codes = [(level / step).round() for level, step in zip(levels, steps, strict=True)]
    return torch.cat(codes).to(torch.int8), scales


def dequantize(codes: torch.Tensor, scales: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """The table (E, F) float32 that `quantize` was given, each value within half a scale."""
    levels = codes.split(list(rows))
    return torch.cat([level.float() * scale for level, scale in zip(levels, scales, strict=True)])


def pack(codes: torch.Tensor) -> torch.Tensor:
    """(B,) uint8, the bytes of int8 codes deflated (RFC 1951)."""
    values = zlib.compress(codes.contiguous().cpu().numpy().tobytes(), level=6)
    return torch.frombuffer(bytearray(values), dtype=torch.uint8)


def unpack(values: torch.Tensor, entries: int, features: int) -> torch.Tensor:
    """Codes (entries, features) int8 from what `pack` made of them.

    Raises:
        ValueError: not as many bytes, or none that were deflated.
    """
    size = entries * features
    try:
        codes = zlib.decompressobj().decompress(values.numpy().tobytes(), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(codes) != size:
        raise ValueError(f"{len(codes)} codes where {size} belong")
    return torch.frombuffer(bytearray(codes), dtype=torch.int8).view(entries, features)

"""Tables in one byte a value."""

import pytest
import torch

from msth_taichi.exporting.quantize import dequantize, pack, quantize, unpack


def test_each_value_is_within_half_a_step_of_its_level_and_feature(generator):
    rows = [40, 3, 57]
    table = torch.randn(100, 2, generator=generator) * torch.tensor([1.0, 100.0])
    table[40:43] *= 1e-3
    codes, scales = quantize(table, rows)
    assert codes.dtype == torch.int8 and scales.shape == (3, 2)
    steps = torch.cat([scale.expand(n, 2) for scale, n in zip(scales, rows, strict=True)])
    error = (dequantize(codes, scales, rows) - table).abs()
    assert (error <= 0.5001 * steps).all()
    for start, end in ((0, 40), (40, 43), (43, 100)):
        assert torch.equal(codes[start:end].abs().amax(0), torch.tensor([127, 127], dtype=torch.int8))


def test_zero_and_the_largest_value_stay_what_they_are():
    table = torch.tensor([[0.3], [0.0], [-0.7]])
    assert dequantize(*quantize(table, [3]), [3])[1:].flatten().tolist() == pytest.approx([0.0, -0.7])
    nothing = torch.zeros(5, 2)
    assert torch.equal(dequantize(*quantize(nothing, [5]), [5]), nothing)


def test_codes_are_packed_and_unpacked(generator):
    codes = torch.randint(-127, 128, (1000, 2), generator=generator, dtype=torch.int8)
    assert torch.equal(unpack(pack(codes), 1000, 2), codes)
    assert len(pack(torch.zeros_like(codes))) < 50


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b.flip(0), lambda b: b[:0]])
def test_damaged_codes_are_told(spoil):
    packed = pack(torch.arange(100, dtype=torch.int8)[:, None])
    with pytest.raises(ValueError):
        unpack(spoil(packed), 100, 1)
    with pytest.raises(ValueError, match="codes where 99 belong"):
        unpack(packed, 99, 1)

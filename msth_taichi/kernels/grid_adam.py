"""One step of Adam over a whole field in one launch: tables, mask and MLPs.

Reads the fixed-point sums and forgets them, moves the parameters, and writes the float16 copies that the next step
reads: 60 bytes a table entry, where unpacking, Adam, zeroing and copying one after another take 110. The same launch
looks for gradients that are not finite, so the host need not.

Letters: L levels, E entries of a table, W weights of all MLPs.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, pair_functions
from msth_taichi.kernels.launch import launchers
from msth_taichi.thresholds import MASK_UNITS

# GPU threads of a block: a fifth faster than Taichi's 128
_THREADS = 512
_EXPONENT = 0x7F800000  # all its bits are set in an infinite float32 and in NaN; fast math may drop other tests


@cache
def grid_adam_kernels(compute: torch.dtype) -> SimpleNamespace:
    """The kernel for MLP gradients of dtype `compute`; see `msth_taichi.training.grid_adam`.

    Tables are seen as pairs in 64-bit words.
    """
    pairs = pair_functions()
    words = ti.types.ndarray(dtype=ti.i64, ndim=2)
    halves = ti.types.ndarray(dtype=ti.i32, ndim=2)
    matrix = ti.types.ndarray(dtype=ti.f32, ndim=2)
    vector = ti.types.ndarray(dtype=ti.f32, ndim=1)
    stored_vector = ti.types.ndarray(dtype=TAICHI_DTYPE[compute], ndim=1)
    level_rows = ti.types.ndarray(dtype=ti.i32, ndim=2)

    @ti.func
    def is_finite(x):
        return (ti.bit_cast(ti.cast(x, ti.f32), ti.i32) & _EXPONENT) != _EXPONENT

    @ti.func
    def move_table(
        entry, table: ti.template(), average: ti.template(), square: ti.template(), copy: ti.template(),
        sums: ti.template(), unit, skip, beta1, beta2, step_size, remains, root_correction, epsilon,
    ):  # fmt: skip
        word = sums[entry, 0]
        if word != 0:
            sums[entry, 0] = 0
        m_word, v_word = average[entry, 0], square[entry, 0]
        # an entry that no gradient ever reached stays as it is
        if skip == 0 and (word != 0 or m_word != 0 or v_word != 0):
            g = pairs.unpack_fixed(word) * unit
            m = beta1 * pairs.unpack32(m_word) + (1 - beta1) * g
            v = beta2 * pairs.unpack32(v_word) + (1 - beta2) * g * g
            p = remains * pairs.unpack32(table[entry, 0]) - step_size * m / (ti.sqrt(v) * root_correction + epsilon)
            average[entry, 0] = pairs.pack32(m)
            square[entry, 0] = pairs.pack32(v)
            table[entry, 0] = pairs.pack32(p)
            if copy.shape[0] > 0:
                copy[entry, 0] = pairs.pack16(p)

    @ti.kernel
    def step(
        static_table: words,  # (E3, 1)
        static_average: words,
        static_square: words,
        static_copy: halves,  # (E3, 1), or empty
        static_sums: words,
        dynamic_table: words,  # (E4, 1)
        dynamic_average: words,
        dynamic_square: words,
        dynamic_copy: halves,  # (E4, 1), or empty
        dynamic_sums: words,
        integers: level_rows,  # (1+2L, 7) `joined_constants` of mask, static and dynamic grid
        bounds: vector,  # (L,) not finite where a feature's gradient was not
        sum_scales: vector,  # (L,) units of the tables' sums per one
        mask_logits: matrix,  # (Em, 1)
        mask_average: matrix,
        mask_square: matrix,
        mask_sums: words,
        weights: vector,  # (W,)
        weight_average: vector,
        weight_square: vector,
        weight_copy: stored_vector,  # (W,)
        weight_gradient: stored_vector,  # (W,)
        loss_scale: vector,  # (1,) what the loss was multiplied by; halved after an overflow
        overflow: vector,  # (2,) 1 if a gradient was not finite: nothing moves then, else 0; the same for all fields
        scale_growth: ti.f32,  # of the loss scale after a step without overflow; 0 where another field follows
        scale_limit: ti.f32,
        mask_pull: ti.f32,  # weight of the mask loss over the number of vertices
        beta1: ti.f32,
        beta2: ti.f32,
        step_size: ti.f32,  # learning rate over the correction of the average's bias
        remains: ti.f32,  # share of a table entry that a step leaves before it moves it
        root_correction: ti.f32,  # one over the root of the correction of the square's bias
        epsilon: ti.f32,
        static_largest: ti.i32,  # entries of the largest level
        dynamic_largest: ti.i32,
    ):
        for _ in range(1):
            overflow[0] = 0
            for level in range(bounds.shape[0]):
                if not is_finite(bounds[level]):
                    overflow[0] = 1
        for i in range(weights.shape[0]):
            if not is_finite(weight_gradient[i]):
                overflow[0] = 1
        ti.loop_config(block_dim=_THREADS)
        for level, k in ti.ndrange(bounds.shape[0], static_largest):
            if k <= integers[1 + level, 1]:
                move_table(
                    integers[1 + level, 0] + k, static_table, static_average, static_square, static_copy, static_sums,
                    1 / (sum_scales[level] * loss_scale[0]), overflow[0], beta1, beta2, step_size, remains,
                    root_correction, epsilon,
                )  # fmt: skip
        ti.loop_config(block_dim=_THREADS)
        for level, k in ti.ndrange(bounds.shape[0], dynamic_largest):
            if k <= integers[1 + bounds.shape[0] + level, 1]:
                move_table(
                    integers[1 + bounds.shape[0] + level, 0] + k, dynamic_table, dynamic_average, dynamic_square,
                    dynamic_copy, dynamic_sums, 1 / (sum_scales[level] * loss_scale[0]), overflow[0],
                    beta1, beta2, step_size, remains, root_correction, epsilon,
                )  # fmt: skip
        for entry in range(mask_logits.shape[0]):
            units = mask_sums[entry, 0]
            if units != 0:
                mask_sums[entry, 0] = 0
            if overflow[0] == 0:
                mask = 1 / (1 + ti.exp(-mask_logits[entry, 0]))
                g = ti.cast(units, ti.f32) / (ti.f32(MASK_UNITS) * loss_scale[0]) - mask_pull * mask * (1 - mask)
                m = beta1 * mask_average[entry, 0] + (1 - beta1) * g
                v = beta2 * mask_square[entry, 0] + (1 - beta2) * g * g
                mask_average[entry, 0] = m
                mask_square[entry, 0] = v
                mask_logits[entry, 0] = mask_logits[entry, 0] - step_size * m / (ti.sqrt(v) * root_correction + epsilon)
        for i in range(weights.shape[0]):
            gradient = weight_gradient[i]
            weight_gradient[i] = 0
            if overflow[0] == 0:
                g = ti.cast(gradient, ti.f32) / loss_scale[0]
                m = beta1 * weight_average[i] + (1 - beta1) * g
                v = beta2 * weight_square[i] + (1 - beta2) * g * g
                weight_average[i] = m
                weight_square[i] = v
                p = weights[i] - step_size * m / (ti.sqrt(v) * root_correction + epsilon)
                weights[i] = p
                weight_copy[i] = ti.cast(p, TAICHI_DTYPE[compute])
        for _ in range(1):
            overflow[1] = ti.max(overflow[0], overflow[1])
            if scale_growth > 0:
                if overflow[1] != 0:
                    loss_scale[0] = loss_scale[0] / 2
                else:
                    loss_scale[0] = ti.min(loss_scale[0] * scale_growth, scale_limit)
                overflow[1] = 0

    return launchers(step=step)

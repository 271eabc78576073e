"""Which samples of rays a render looks up in the field, and what rays see in them; a thread a ray, rays side by side.

Letters: N rays, S samples of each at most, M samples that are looked up, C of them whose colours are, G geometry
features, B features of a ray.
"""

from functools import cache
from types import SimpleNamespace

import taichi as ti
import torch

from msth_taichi.kernels.cells import TAICHI_DTYPE, real_of
from msth_taichi.kernels.contract import contract_functions
from msth_taichi.kernels.launch import launchers
from msth_taichi.kernels.logits import logit_functions

SKIPPED, WANTED = -1, -2
"""In place of the slot of a sample that is not looked up, or not yet."""

FEW = 4
"""Neighbouring samples of which the foremost stands for all where none shows."""


@cache
def place_kernels(contraction: str) -> SimpleNamespace:
    """Kernels for float32; see `msth_taichi.ops.lookups`."""
    space = contract_functions(ti.f32, contraction)
    matrix = ti.types.ndarray(dtype=ti.f32, ndim=2)
    table = ti.types.ndarray(dtype=ti.i32, ndim=2)
    numbers = ti.types.ndarray(dtype=ti.i32, ndim=1)

    @ti.kernel
    def place(
        first: ti.i32,  # sample of a ray
        last: ti.i32,  # one beyond
        count: numbers,  # (N,)
        ends: numbers,  # (N,) wanted samples of the rays so far
        wanted: numbers,  # (N,)
        base: ti.i32,
        origins: matrix,  # (N, 3)
        directions: matrix,  # (N, 3)
        middles: matrix,  # (S, N)
        box: ti.f32,
        aligned: ti.i32,  # positions beyond the last are zero up to a multiple of it
        slots: table,  # (S, N)
        positions: matrix,  # (M, 3)
    ):
        for ray in range(count.shape[0]):
            if wanted[ray] > 0:
                at = ends[ray] - wanted[ray]
                origin, direction = ti.Vector([0.0, 0.0, 0.0]), ti.Vector([0.0, 0.0, 0.0])
                for d in ti.static(range(3)):
                    origin[d] = origins[ray, d]
                    direction[d] = directions[ray, d]
                for row in range(first, ti.min(last, count[ray])):
                    if slots[row, ray] == WANTED:
                        x = space.contracted(origin + direction * middles[row, ray], box)
                        for d in ti.static(range(3)):
                            positions[at, d] = x[d]
                        slots[row, ray] = base + at
                        at += 1
            if ray == count.shape[0] - 1:
                for beyond in range(ends[ray], (ends[ray] + aligned - 1) // aligned * aligned):
                    for d in ti.static(range(3)):
                        positions[beyond, d] = 0.0

    return launchers(place=place)


@cache
def lookup_kernels(dtype: torch.dtype) -> SimpleNamespace:
    """Kernels for logits of `dtype`; see `msth_taichi.ops.lookups`."""
    real = real_of(dtype)
    volume = logit_functions(real)
    stored = TAICHI_DTYPE[dtype]
    matrix = ti.types.ndarray(dtype=ti.f32, ndim=2)
    vector = ti.types.ndarray(dtype=ti.f32, ndim=1)
    table = ti.types.ndarray(dtype=ti.i32, ndim=2)
    numbers = ti.types.ndarray(dtype=ti.i32, ndim=1)
    stored_vector = ti.types.ndarray(dtype=stored, ndim=1)
    stored_matrix = ti.types.ndarray(dtype=stored, ndim=2)

    @ti.kernel
    def want(
        first: ti.i32,  # sample of a ray
        last: ti.i32,  # one beyond
        darkness: real,
        count: numbers,  # (N,)
        widths: matrix,  # (S, N)
        logits: stored_vector,  # (M',) of an earlier turn
        base: ti.i32,  # slot of the first of them
        known_first: ti.i32,  # sample of that turn
        known_last: ti.i32,  # one beyond
        depth: vector,  # (N,) optical, added to
        slots: table,  # (S, N)
        wanted: numbers,  # (N,)
    ):
        for ray in range(count.shape[0]):
            passed = real(depth[ray])
            for row in range(known_first, ti.min(known_last, count[ray])):
                slot = slots[row, ray]
                if slot >= 0:
                    passed += volume.optical_depth(ti.cast(logits[slot - base], real), real(widths[row, ray]))
            depth[ray] = passed
            number = 0
            if passed < darkness:
                for row in range(first, ti.min(last, count[ray])):
                    slots[row, ray] = WANTED
                    number += 1
            wanted[ray] = number

    @ti.kernel
    def weigh(
        least: real,  # share of a ray's light
        darkness: real,
        keep_last: ti.i32,
        count: numbers,  # (N,)
        middles: matrix,  # (S, N)
        widths: matrix,  # (S, N)
        slots: table,  # (S, N)
        logits: stored_vector,  # (M,)
        masks: vector,  # (M,)
        depth: vector,  # (N,) optical
        median: vector,  # (N,) overwritten where half of the light goes
        mask: vector,  # (N,)
        weights: vector,  # (M,), -1 of samples that do not show
        shown: numbers,  # (N,)
    ):
        for ray in range(count.shape[0]):
            samples = count[ray]
            passed, total, place = real(0.0), real(0.0), real(median[ray])
            number = 0
            start = 0
            while start < samples:
                end = ti.min(start + FEW, samples)
                thickest, foremost, shows = real(0.1) * least, -1, 0
                for row in range(start, end):
                    slot = slots[row, ray]
                    if slot >= 0:
                        tau = volume.optical_depth(ti.cast(logits[slot], real), real(widths[row, ray]))
                        light = ti.exp(-passed)
                        weight = light * volume.absorbed(tau)
                        passed += tau
                        total += weight * masks[slot]
                        if light > 0.5:
                            place = middles[row, ray]
                        seen = weight > least
                        if weight > thickest:
                            thickest = weight
                            foremost = slot
                        weights[slot] = weight if seen else real(-1.0)
                        shows += ti.cast(seen, ti.i32)
                if shows == 0 and foremost >= 0:
                    # thin smoke has no sample that shows: one of each few then stands for them
                    weights[foremost] = thickest
                    shows = 1
                number += shows
                start = end
            if samples > 0:
                last = slots[samples - 1, ray]
                if keep_last == 1 and last >= 0 and passed < darkness:
                    if weights[last] < 0:
                        weights[last] = 0.0
                        number += 1
            depth[ray] = passed
            median[ray] = place
            mask[ray] = total
            shown[ray] = number

    @ti.kernel
    def choose(
        count: numbers,  # (N,)
        slots: table,  # (S, N)
        weights: vector,  # (M,)
        ends: numbers,  # (N,) colours of the rays so far
        shown: numbers,  # (N,)
        aligned: ti.i32,  # what is beyond the last is zero up to a multiple of it
        chosen: numbers,  # (C,) slots
        owners: numbers,  # (C,) rays
    ):
        for ray in range(count.shape[0]):
            if ray == count.shape[0] - 1:
                for beyond in range(ends[ray], (ends[ray] + aligned - 1) // aligned * aligned):
                    chosen[beyond] = 0
                    owners[beyond] = 0
            if shown[ray] > 0:
                at = ends[ray] - shown[ray]
                for row in range(count[ray]):
                    slot = slots[row, ray]
                    if slot >= 0:
                        if weights[slot] >= 0:
                            chosen[at] = slot
                            owners[at] = ray
                            at += 1

    @ti.kernel
    def gather(
        chosen: numbers,  # (C,)
        owners: numbers,  # (C,)
        per_ray: stored_matrix,  # (B, N)
        geometry: stored_matrix,  # (1+G, M)
        inputs: stored_matrix,  # (B+1+G, C)
    ):
        for at in range(inputs.shape[1]):
            of_ray = per_ray.shape[0]
            ray, slot = owners[at], chosen[at]
            for row in range(of_ray):
                inputs[row, at] = per_ray[row, ray]
            inputs[of_ray, at] = ti.cast(1.0, stored)  # in place of the density, see `radiance`
            for row in range(1, geometry.shape[0]):
                inputs[of_ray + row, at] = geometry[row, slot]

    @ti.kernel
    def shade(
        ends: numbers,  # (N,) colours of the rays so far
        shown: numbers,  # (N,)
        chosen: numbers,  # (C,)
        weights: vector,  # (M,)
        depth: vector,  # (N,)
        color_logits: stored_matrix,  # (3, C)
        colors: matrix,  # (3, N)
        last_colors: matrix,  # (3, N)
    ):
        for ray in range(ends.shape[0]):
            color, last = ti.Vector([real(0.0)] * 3), ti.Vector([real(0.0)] * 3)
            total = real(0.0)
            for at in range(ends[ray] - shown[ray], ends[ray]):
                weight = weights[chosen[at]]
                for c in ti.static(range(3)):
                    last[c] = volume.sigmoid(ti.cast(color_logits[c, at], real))
                color += weight * last
                total += weight
            # the little that did not show has the colour of the rest
            whole = volume.absorbed(real(depth[ray])) / ti.max(total, real(1e-6))
            for c in ti.static(range(3)):
                colors[c, ray] = color[c] * whole
                last_colors[c, ray] = last[c]

    return launchers(want=want, weigh=weigh, choose=choose, gather=gather, shade=shade)

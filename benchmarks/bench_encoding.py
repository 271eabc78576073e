"""Time of the hash grids and of the masked encoding, forward and gradient, against PyTorch and against floors.

    python benchmarks/bench_encoding.py             # the plenoptic field, 2^14 to 2^22 samples; needs a GPU
    python benchmarks/bench_encoding.py --small     # the demo's field, 2^12 to 2^16 samples

Samples come in rays of 48. They lie across the whole cube ("spread"), so that no two share a cell; along the rays of
cameras around a scene ("camera"), as before a training knows where surfaces are; or within a hundredth of the cube
("surface"), as afterwards. Counts are powers of two, rounded down to whole rays.

Letters: N rays, M samples, D axes, L levels, F features, E table entries.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import common
import torch
from common import Result, Row, measure
from options import arguments
from rates import Rates, Work, measure_rates

from msth_taichi.config import RayConfig, load_preset
from msth_taichi.grids import GridSpec
from msth_taichi.kernels.cells import BLOCK, BLOCK_APART, Sums, as_words, level_constants
from msth_taichi.kernels.hash_grid import hash_grid_kernels
from msth_taichi.model.encoding import MaskedEncoding
from msth_taichi.model.rays import camera_rays
from msth_taichi.ops.sample_positions import sample_positions
from msth_taichi.ops.stratified import stratified_samples
from msth_taichi.reference.hash_grid import cells, corner_slots
from msth_taichi.reference.hash_grid import hash_grid as reference_hash_grid
from msth_taichi.reference.masked_encoding import masked_encoding as reference_masked_encoding
from msth_taichi.scene.scene import load_scene
from msth_taichi.thresholds import FIXED_LIMIT

NAME = "encoding"

SAMPLES = 48
"""Per ray, as the field is given."""

EXTENT = 0.01
"""Length of a ray's samples near a surface, edges of the cube."""

KEPT = 10
"""Samples of a ray with a gradient, in the rows where four fifths have none: they lie in a row, around a surface."""

SATURATED_LOGIT = 40.0
SATURATED_SHARE = 0.95
BLOCKS = 16  # of the mask per axis: what is saturated comes in cubes of this many to an edge

TARGET = 2**20
"""The count whose rows come first in the page, and the only one with samples along the rays of cameras."""

CAMERAS = "synthetic:cameras=19,test_cameras=1,frames=1,width=1352,height=1014"

Kind = Literal["spread", "camera", "surface"]
Gradients = Literal["all", "a fifth"]
KINDS: tuple[Kind, ...] = ("spread", "camera", "surface")
GRADIENTS: tuple[Gradients, ...] = ("all", "a fifth")
MASKS = ("initial", "saturated")


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Args:
        preset: whose field gives the sizes of grids and mask.
        counts: powers of two, see `whole_rays`.
        dtypes: that features are computed in.
        referenced: counts that are timed with the PyTorch reference too.
        repeats: of each operation.
        settings: overrides of the preset.
    """

    preset: str
    counts: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    referenced: tuple[int, ...]
    repeats: int = common.REPEATS
    settings: tuple[str, ...] = ()


FULL = Sizes("plenoptic", tuple(2**k for k in range(14, 23)), (torch.float16, torch.float32), (2**14, 2**16), repeats=5)
SMALL = Sizes("demo", tuple(2**k for k in range(12, 17)), (torch.float16, torch.float32), (2**12,), repeats=3)


def whole_rays(count: int) -> int:
    """The largest number of samples up to `count` that fills rays: 1,048,560 of 2^20."""
    return count // SAMPLES * SAMPLES


class Visits(NamedTuple):
    """Corners that have to be looked up or added to, and the distinct entries among them."""

    corners: int
    entries: int


@dataclass
class Batch:
    """Samples, their gradients, and what an encoding has to do for them.

    Args:
        kind: where they lie.
        positions: (M, 3).
        times: (N,).
        gradient: (L*F, M) float32 of the features, none of them zero.
        kept: (M,) bool, a fifth of the samples.
        moving: of each mask, (M,) bool: where the dynamic table and the mask itself take part.
    """

    kind: Kind
    positions: torch.Tensor
    times: torch.Tensor
    gradient: torch.Tensor
    kept: torch.Tensor
    moving: dict[str, torch.Tensor] = field(default_factory=dict)
    _visits: dict[tuple[GridSpec, Gradients, str | None], Visits] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions)

    def points(self, axes: int) -> torch.Tensor:
        """(M, D) positions, with their time as a fourth axis."""
        if axes == 3:
            return self.positions
        return torch.cat([self.positions, self.times.repeat_interleave(SAMPLES)[:, None]], dim=1)

    def gradient_of(self, which: Gradients, dtype: torch.dtype) -> torch.Tensor:
        """(L*F, M), zero where a sample is not kept."""
        return (self.gradient * self.kept if which == "a fifth" else self.gradient).to(dtype)

    def visits(self, spec: GridSpec, gradients: Gradients = "all", mask: str | None = None) -> Visits:
        """What samples reach of a grid.

        Args:
            spec: of the grid.
            gradients: which samples take part.
            mask: of those, the ones where this mask says that something moves; None for all.
        """
        key = spec, gradients, mask
        if key not in self._visits:
            kept = self.kept if gradients == "a fifth" else torch.ones_like(self.kept)
            if mask is not None:
                kept = kept & self.moving[mask]
            self._visits[key] = count_visits(self.points(spec.axes), spec, kept)
        return self._visits[key]


def make_batch(kind: Kind, count: int, outputs: int, device: torch.device) -> Batch:
    """A batch of `count` samples in whole rays; the same for the same arguments.

    Spread rays go from one face of the cube to the opposite one; those near a surface are short, and anywhere; those of
    cameras go through random pixels of the built-in scene's, with samples where a proposal gets its own.
    """
    generator = torch.Generator(device).manual_seed(count)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    rays = count // SAMPLES
    if kind == "spread":
        start, end = uniform(rays, 3), uniform(rays, 3)
        axis = torch.arange(rays, device=device) % 3
        start[torch.arange(rays, device=device), axis] = 0.0
        end[torch.arange(rays, device=device), axis] = 1.0
    else:
        towards = torch.nn.functional.normalize(uniform(rays, 3) - 0.5) * EXTENT
        start = EXTENT + (1 - 2 * EXTENT) * uniform(rays, 3)
        end = start + towards
    along = (torch.arange(SAMPLES, device=device) + uniform(rays, 1)) / SAMPLES
    positions = torch.lerp(start[:, None], end[:, None], along[..., None]).clamp(0, 1)
    if kind == "camera":
        positions = camera_positions(uniform, rays, device)
    first = (uniform(rays, 1) * (SAMPLES - KEPT)).round()
    behind = torch.arange(SAMPLES, device=device) - first
    kept = (behind >= 0) & (behind < KEPT)
    gradient = torch.randn(outputs, count, generator=generator, device=device)
    gradient = gradient.sign() * gradient.abs().clamp(min=1e-2)
    return Batch(kind, positions.reshape(-1, 3).contiguous(), uniform(rays), gradient, kept.flatten())


def camera_positions(uniform: Callable[..., torch.Tensor], count: int, device: torch.device) -> torch.Tensor:
    """(N, 48, 3) grid positions along `count` rays of cameras around a scene, stratified."""
    cameras, bounds = load_scene(CAMERAS).cameras.to(device), RayConfig()
    width, height = cameras.size(0)
    camera, row, column = ((uniform(count) * size).long() for size in (len(cameras), height, width))
    rays = camera_rays(cameras, camera, row, column, uniform(count), bounds.near, bounds.far)
    _, t_edges = stratified_samples(rays.near, rays.far, SAMPLES, bounds.spacing, bounds.middle, uniform(count))
    return sample_positions(rays.origins, rays.directions, t_edges).view(count, SAMPLES, 3)


def count_visits(points: torch.Tensor, spec: GridSpec, kept: torch.Tensor) -> Visits:
    """Corners of the cells that rays pass, over all levels. Neighbouring samples in one cell visit them together.

    Args:
        points: (M, D) in [0, 1], ray after ray.
        spec: of the grid.
        kept: (M,) bool, samples that count.
    """
    ray = torch.arange(len(points), device=points.device)[kept] // SAMPLES
    points = points[kept]
    if not len(points):
        return Visits(0, 0)
    touched = torch.zeros(spec.num_entries, dtype=torch.bool, device=points.device)
    entered = 0
    for level in range(spec.levels):
        cell, _ = cells(points, spec, level)
        enters = (cell[1:] != cell[:-1]).any(1) | (ray[1:] != ray[:-1])
        cell = torch.cat([cell[:1], cell[1:][enters]])
        entered += len(cell)
        for corner in itertools.product((0, 1), repeat=spec.axes):
            touched[corner_slots(cell + torch.tensor(corner, device=cell.device), spec, level)] = True
    return Visits(entered * 2**spec.axes, int(touched.sum()))


def saturated_logits(spec: GridSpec, initial: float, device: torch.device) -> torch.Tensor:
    """(E, 1) mask of which 95 % says static for sure, in cubes, and the rest nothing."""
    vertices = spec.resolutions[0][0] + 1
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(BLOCKS, BLOCKS, BLOCKS, generator=generator) < SATURATED_SHARE
    index = torch.arange(vertices) * BLOCKS // vertices
    sure = blocks[index][:, index][:, :, index].flatten()
    if spec.axes == 4:  # the same at all times
        sure = sure.repeat(spec.resolutions[0][3] + 1)
    logits = torch.full((spec.num_entries, 1), initial)
    logits[: len(sure), 0][sure] = SATURATED_LOGIT
    return logits.to(device)


@dataclass
class Context:
    """Everything that stays the same from row to row."""

    device: torch.device
    sizes: Sizes
    rates: Rates
    encoding: MaskedEncoding
    masks: dict[str, torch.Tensor]

    @property
    def cpu(self) -> bool:
        return self.device.type == "cpu"

    def hash_grid(self, spec: GridSpec, dtype: torch.dtype, sums: Sums):
        """Kernels of one grid, as its operator takes them."""
        gpu = self.device.type == "cuda"
        return hash_grid_kernels(spec.axes, spec.features, dtype, sums, BLOCK_APART if gpu else BLOCK, gpu)

    def row(
        self, labels: Row, function: Callable[[], Any], work: Work, sums: Sums = "fixed", before: Any = None
    ) -> Row:
        """Time a function, and say what it could take."""
        timing = measure(function, self.device, before, self.sizes.repeats)
        return {**labels, "ms": timing.ms, "host_ms": timing.host_ms, **self.rates.floors(work, sums)}


def measure_all(device: torch.device, sizes: Sizes, rates: Rates | None = None) -> Result:
    """Every row, and what they were measured against."""
    config = load_preset(sizes.preset, list(sizes.settings)).field
    torch.manual_seed(0)
    encoding = MaskedEncoding(config).to(device)
    if device.type == "cuda":
        encoding.sum_in_fixed_point()
    masks = {
        "initial": torch.full_like(encoding.mask_logits.detach(), config.mask_init),
        "saturated": saturated_logits(encoding.mask_spec, config.mask_init, device),
    }
    rates = rates or measure_rates(device, max(encoding.static_spec.entries))
    bench = Context(device, sizes, rates, encoding, masks)
    rows = []
    for kind, count in itertools.product(KINDS, sizes.counts):
        if kind == "camera" and count != min(TARGET, sizes.counts[-1]):
            continue
        batch = make_batch(kind, whole_rays(count), encoding.num_outputs, device)
        for name, logits in masks.items():
            encoding.mask_logits.data.copy_(logits)
            batch.moving[name] = encoding.mask(batch.positions, batch.times).detach() < 1
        for dtype in sizes.dtypes:
            if device.type == "cpu" and dtype == torch.float16:
                continue  # only GPUs are given float16
            rows += grid_rows(bench, batch, dtype)
            rows += blend_rows(bench, batch, dtype)
    return {
        "preset": sizes.preset,
        "settings": list(sizes.settings),
        "rates": asdict(rates),
        "rows": rows,
    }


def grid_rows(bench: Context, batch: Batch, dtype: torch.dtype) -> Iterator[Row]:
    """The static and the dynamic grid alone: forward, and gradient to the table by each kind of sums."""
    for table, spec in (
        (bench.encoding.static_table, bench.encoding.static_spec),
        (bench.encoding.dynamic_table, bench.encoding.dynamic_spec),
    ):
        yield _grid_forward(bench, batch, dtype, spec, table.detach())
        kinds: tuple[Sums, ...] = ("serial",) if bench.cpu else ("fixed", "atomic")
        for gradients, sums in itertools.product(GRADIENTS, kinds):
            yield _grid_gradient(bench, batch, dtype, spec, table.detach(), gradients, sums)


def _grid_forward(bench: Context, batch: Batch, dtype: torch.dtype, spec: GridSpec, table: torch.Tensor) -> Row:
    points = batch.points(spec.axes)
    copy = table.to(dtype)
    out = torch.empty(spec.num_outputs, len(batch), dtype=dtype, device=bench.device)
    constants = level_constants(spec, bench.device, torch.float32)
    kernels = bench.hash_grid(spec, dtype, "atomic")
    visits = batch.visits(spec)
    work = Work(points.nbytes + out.nbytes + visits.entries * spec.features * dtype.itemsize, visits.corners)
    row = bench.row(
        _labels(f"{spec.axes}D forward", batch, dtype),
        lambda: kernels.forward(points, as_words(copy), *constants, out),
        work,
    )
    if _has_reference(bench, batch, dtype):
        _compare(bench, row, lambda: reference_hash_grid(points, table, spec))
    return row


def _grid_gradient(
    bench: Context,
    batch: Batch,
    dtype: torch.dtype,
    spec: GridSpec,
    table: torch.Tensor,
    gradients: Gradients,
    sums: Sums,
) -> Row:
    points, incoming = batch.points(spec.axes), batch.gradient_of(gradients, dtype)
    fixed = sums == "fixed"
    total = torch.zeros(
        spec.num_entries,
        1 if fixed else spec.features,
        dtype=torch.int64 if fixed else torch.float32,
        device=bench.device,
    )
    units = FIXED_LIMIT / incoming.float().view(spec.levels, -1).abs().sum(1)
    constants = level_constants(spec, bench.device, torch.float32)
    kernels = bench.hash_grid(spec, dtype, sums)
    row = bench.row(
        _labels(f"{spec.axes}D table gradient", batch, dtype, gradients=gradients, sums=sums),
        lambda: kernels.backward_table(points, *constants, incoming, total, units),
        Work(incoming.nbytes) + _read_points(batch, spec.axes, gradients) + _sum_work(batch, spec, gradients, sums),
        sums,
    )
    if gradients == "all" and _has_reference(bench, batch, dtype):
        leaf = table.clone().requires_grad_()
        value = reference_hash_grid(points, leaf, spec)
        _compare(bench, row, lambda: torch.autograd.grad(value, leaf, incoming, retain_graph=True))
    return row


def blend_rows(bench: Context, batch: Batch, dtype: torch.dtype) -> Iterator[Row]:
    """The masked encoding: 3D, 4D and mask together."""
    for name in MASKS:
        bench.encoding.mask_logits.data.copy_(bench.masks[name])
        for training in (False, True):
            yield _blend_forward(bench, batch, dtype, name, training)
        for gradients in GRADIENTS:
            yield _blend_gradient(bench, batch, dtype, name, gradients)


def _blend_forward(bench: Context, batch: Batch, dtype: torch.dtype, mask: str, training: bool) -> Row:
    encoding = bench.encoding
    visits = [batch.visits(encoding.static_spec), batch.visits(encoding.dynamic_spec, mask=mask)]
    of_mask = batch.visits(encoding.mask_spec)
    features = encoding.num_outputs * len(batch) * dtype.itemsize
    # in training the derivative to the mask is written beside the features
    per_sample = batch.positions.nbytes + batch.times.nbytes + 4 * len(batch) + features * (2 if training else 1)
    pair = encoding.static_spec.features * dtype.itemsize
    work = Work(
        per_sample + pair * sum(v.entries for v in visits) + 4 * of_mask.entries,
        sum(v.corners for v in visits) + of_mask.corners,
    )

    def run() -> None:
        with torch.set_grad_enabled(training):
            encoding(batch.positions, batch.times, dtype)

    labels = _labels("masked encoding forward" + (" in training" if training else ""), batch, dtype, mask=mask)
    row = bench.row(labels, run, work)
    if mask == "initial" and not training and _has_reference(bench, batch, dtype):
        arguments = _reference_arguments(bench, batch)
        _compare(bench, row, lambda: reference_masked_encoding(*arguments))
    return row


def _blend_gradient(bench: Context, batch: Batch, dtype: torch.dtype, mask: str, gradients: Gradients) -> Row:
    encoding = bench.encoding
    sums: Sums = "serial" if encoding.sums is None else "fixed"
    incoming = batch.gradient_of(gradients, dtype)
    outputs = encoding(batch.positions, batch.times, dtype)[0]
    tables = [encoding.mask_logits, encoding.static_table, encoding.dynamic_table]

    def run() -> None:
        torch.autograd.grad(outputs, tables, incoming, retain_graph=True, allow_unused=True)

    def forget() -> None:
        if encoding.sums is not None:
            encoding.sums.pending = False  # clearing is the optimiser's work

    slope = encoding.num_outputs * int(batch.moving[mask].sum()) * dtype.itemsize
    work = Work(incoming.nbytes + slope + 4 * len(batch) + batch.times.nbytes)
    work += _read_points(batch, 3, gradients)
    for spec, of_mask in ((encoding.mask_spec, mask), (encoding.static_spec, None), (encoding.dynamic_spec, mask)):
        work += _sum_work(batch, spec, gradients, sums, of_mask)
    labels = _labels("masked encoding gradient", batch, dtype, mask=mask, gradients=gradients, sums=sums)
    row = bench.row(labels, run, work, sums, forget)
    forget()
    if mask == "initial" and gradients == "all" and _has_reference(bench, batch, dtype):
        arguments = _reference_arguments(bench, batch)
        leaves = [x.clone().requires_grad_() for x in arguments[2:5]]
        value = reference_masked_encoding(*arguments[:2], *leaves, *arguments[5:])[0]
        _compare(bench, row, lambda: torch.autograd.grad(value, leaves, incoming, retain_graph=True))
    return row


def _read_points(batch: Batch, axes: int, gradients: Gradients) -> Work:
    """Positions of the samples that have a gradient."""
    return Work(4 * axes * len(batch) * (KEPT / SAMPLES if gradients == "a fifth" else 1))


def _sum_work(batch: Batch, spec: GridSpec, gradients: Gradients, sums: Sums, mask: str | None = None) -> Work:
    """Additions to a table of sums, and its entries read and written once."""
    visits = batch.visits(spec, gradients, mask)
    if sums == "fixed":
        return Work(16 * visits.entries, additions=visits.corners)
    each = spec.features if sums == "atomic" else 1
    return Work(8 * spec.features * visits.entries, additions=each * visits.corners)


def _labels(operation: str, batch: Batch, dtype: torch.dtype, **circumstances: str) -> Row:
    return {
        "operation": operation,
        **{name: circumstances.get(name) for name in ("mask", "gradients", "sums")},
        "positions": batch.kind,
        "dtype": str(dtype).removeprefix("torch."),
        "samples": len(batch),
    }


def _has_reference(bench: Context, batch: Batch, dtype: torch.dtype) -> bool:
    return dtype == torch.float32 and len(batch) in map(whole_rays, bench.sizes.referenced)


def _reference_arguments(bench: Context, batch: Batch) -> tuple[Any, ...]:
    encoding = bench.encoding
    tables = (encoding.mask_logits.detach(), encoding.static_table.detach(), encoding.dynamic_table.detach())
    specs = (encoding.mask_spec, encoding.static_spec, encoding.dynamic_spec)
    return batch.positions, batch.times, *tables, *specs, encoding.blend


def _compare(bench: Context, row: Row, reference: Callable[[], Any]) -> None:
    """Add the PyTorch reference's time to a row; it is slow, so few repeats have to do."""
    row["reference_ms"] = measure(reference, bench.device, repeats=3).ms
    row["reference_ratio"] = row["reference_ms"] / row["ms"]


def title(row: Row) -> str:
    """A row's operation with its circumstances."""
    parts = []
    if row["mask"]:
        parts.append(f"{row['mask']} mask")
    if row["gradients"] == "a fifth":
        parts.append("a fifth of the samples")
    if row["sums"]:
        parts.append(f"{row['sums']} sums")
    return row["operation"] + (f" ({', '.join(parts)})" if parts else "")


def page(result: Result) -> str:
    """The result as Markdown."""
    rows = result["rows"]
    counts = sorted({row["samples"] for row in rows})
    target = max([count for count in counts if count <= TARGET] or counts)
    lines = [
        "# The masked encoding",
        "",
        *common.head("bench_encoding.py", result),
        f"Grids of the preset {' '.join([result['preset'], *result['settings']])}. Milliseconds. Rates of this device:",
        "",
        *Rates(**result["rates"]).lines(),
        "",
        f"## {target:,} samples",
        "",
        "Floors: each byte that must move once at the better bandwidth; a lookup, or an addition, for each corner of "
        "each cell that a ray's samples pass, at the rate of random slots. Neighbours in one cell count once.",
        "",
        *_target_table([row for row in rows if row["samples"] == target]),
    ]
    for dtype, kind in itertools.product(dict.fromkeys(row["dtype"] for row in rows), ("spread", "surface")):
        chosen = [row for row in rows if row["dtype"] == dtype and row["positions"] == kind]
        lines += ["", f"## Every count: {dtype}, {kind}", "", *_count_table(chosen, counts)]
    compared = [row for row in rows if "reference_ms" in row]
    if compared:
        columns = ["operation", "positions", "samples", "ms", "PyTorch", "ratio"]
        cells = [
            [title(r), r["positions"], r["samples"], r["ms"], r["reference_ms"], r["reference_ratio"]] for r in compared
        ]
        lines += ["", "## Against the PyTorch reference, float32", "", *common.markdown_table(columns, cells)]
    return "\n".join(lines) + "\n"


def _target_table(rows: list[Row]) -> list[str]:
    columns = ["operation", "positions", "dtype", "ms", "host", "floor: bytes", "lookups", "additions"]
    cells = [
        [
            title(row),
            row["positions"],
            row["dtype"],
            row["ms"],
            row["host_ms"],
            row["floor_bytes_ms"],
            row["floor_lookups_ms"] or None,
            row["floor_additions_ms"] or None,
        ]
        for row in rows
    ]
    return common.markdown_table(columns, cells)


def _count_table(rows: list[Row], counts: list[int]) -> list[str]:
    times: dict[str, dict[int, float]] = {}
    for row in rows:
        times.setdefault(title(row), {})[row["samples"]] = row["ms"]
    cells = [[name, *(found.get(count) for count in counts)] for name, found in times.items()]
    return common.markdown_table(["operation", *(f"{count:,}" for count in counts)], cells)


def measured(device: torch.device, options: argparse.Namespace) -> Result:
    """See `common.main`."""
    return measure_all(device, SMALL if options.small else FULL)


if __name__ == "__main__":
    common.main(NAME, measured, page, arguments(__doc__))

"""The benchmarks run, at sizes of no meaning, and their tables hold what they promise. Nothing is said about time."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from msth_taichi.config import DataConfig, load_preset
from msth_taichi.errors import MsthError
from msth_taichi.grids import GridSpec
from msth_taichi.ops.hash_grid import hash_grid

FOLDER = Path(__file__).parents[1] / "benchmarks"

GRIDS = ("levels=2", "base_resolution=[4,4,4,2]", "max_resolution=[8,8,8,4]", "mask_resolution=4", "hidden=8")
SETTINGS = (
    *(f"{part}.{value}" for part in ("field", "proposals.0") for value in (*GRIDS, "log2_static=8", "log2_dynamic=8")),
    "field.hidden_color=8",
    "proposals.0.samples=8",
    "rays.samples=6",
    "training.rays_per_step=32",
)
SCENE = "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"
STAMP = {"device": "a device", "threads": 1, "versions": {"torch": "2"}, "date": "2026-01-01", "commit": "abc"}


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def module(name: str) -> Any:
    return importlib.import_module(name)


def table_rows(page: str) -> list[list[str]]:
    """Cells of all tables of a page, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def numbers(rows: list[dict[str, Any]], *fields: str) -> list[float]:
    return [row[field] for row in rows for field in fields]


def test_encoding(device):
    bench = module("bench_encoding")
    sizes = bench.Sizes("demo", (2**7, 2**8), (torch.float16, torch.float32), (2**7,), repeats=1, settings=SETTINGS)
    result = bench.measure_all(device, sizes, module("rates").measure_rates(device, 2**8, scale=1e-3))
    rows, gpu = result["rows"], device.type == "cuda"
    operations = {row["operation"] for row in rows}
    assert operations == {
        "3D forward",
        "4D forward",
        "3D table gradient",
        "4D table gradient",
        "masked encoding forward",
        "masked encoding forward in training",
        "masked encoding gradient",
    }
    assert {(row["positions"], row["samples"]) for row in rows} == {
        (kind, count) for kind in ("spread", "surface") for count in (96, 240)
    } | {("camera", 240)}
    assert {row["dtype"] for row in rows} == ({"float16", "float32"} if gpu else {"float32"})
    assert {row["sums"] for row in rows} == ({None, "fixed", "atomic"} if gpu else {None, "serial"})
    gradients = {(row["mask"], row["gradients"]) for row in rows if row["operation"] == "masked encoding gradient"}
    assert gradients == {(mask, which) for mask in ("initial", "saturated") for which in ("all", "a fifth")}
    floors = numbers(rows, "ms", "floor_bytes_ms", "floor_lookups_ms", "floor_additions_ms")
    assert all(math.isfinite(value) and value >= 0 for value in floors)
    compared = [row for row in rows if "reference_ms" in row]
    assert {row["samples"] for row in compared} == {96}
    assert {row["operation"] for row in compared} == operations - {"masked encoding forward in training"}

    page = bench.page({"stamp": STAMP, **result})
    sums = "fixed" if gpu else "serial"
    title = f"masked encoding gradient (saturated mask, a fifth of the samples, {sums} sums)"
    assert title in [cell[0] for cell in table_rows(page)]
    assert "## 240 samples" in page and "Against the PyTorch reference" in page and "commit abc" in page


def test_encoding_counts_whole_rays_up_to_the_target():
    bench = module("bench_encoding")
    assert bench.whole_rays(2**20) == 1_048_560
    assert 2**20 in bench.FULL.counts


def test_corners_are_counted_once_for_neighbours_in_a_cell():
    bench = module("bench_encoding")
    spec = GridSpec((3, 3, 3), (3, 3, 3), 1, 2, None)  # scale 2: cells change at 0.25 and 0.75
    first = torch.full((bench.SAMPLES, 3), 0.1)
    second = first.clone()
    second[bench.SAMPLES // 2 :, 0] = 0.5
    points, kept = torch.cat([first, second]), torch.ones(2 * bench.SAMPLES, dtype=torch.bool)
    # one cell on the first ray; that cell again and its neighbour on the second, which share a face
    assert bench.count_visits(points, spec, kept) == (3 * 8, 12)
    kept[bench.SAMPLES :] = False
    assert bench.count_visits(points, spec, kept) == (8, 8)
    assert bench.count_visits(points, spec, torch.zeros_like(kept)) == (0, 0)


def test_corners_counted_are_those_that_the_kernels_touch():
    bench = module("bench_encoding")
    spec = GridSpec((4, 4, 4), (16, 16, 16), 3, 2, 8)
    batch = bench.make_batch("surface", 2 * bench.SAMPLES, spec.num_outputs, torch.device("cpu"))
    table = torch.zeros(spec.num_entries, 2, requires_grad=True)
    hash_grid(batch.positions, table, spec).backward(batch.gradient_of("a fifth", torch.float32))
    assert table.grad is not None
    assert int((table.grad != 0).any(1).sum()) == batch.visits(spec, "a fifth").entries


@pytest.mark.parametrize("kind", ["spread", "camera", "surface"])
def test_samples_lie_as_they_are_said_to(kind):
    bench = module("bench_encoding")
    batch = bench.make_batch(kind, 6 * bench.SAMPLES, 4, torch.device("cpu"))
    rays = batch.positions.view(6, bench.SAMPLES, 3)
    extent = (rays.amax(1) - rays.amin(1)).amax(1)
    low, high = {"spread": (0.9, 1), "camera": (0.2, 1), "surface": (0, bench.EXTENT)}[kind]
    assert ((extent > low) & (extent <= high)).all()
    assert ((batch.positions >= 0) & (batch.positions <= 1)).all() and (batch.gradient != 0).all()
    kept = batch.kept.view(6, bench.SAMPLES).int()
    assert (kept.sum(1) == bench.KEPT).all() and (kept.diff(dim=1) == 1).sum(1).le(1).all(), "ten in a row"


def test_saturated_mask_is_saturated_where_it_says():
    bench = module("bench_encoding")
    spec = GridSpec((32,) * 3, (32,) * 3, 1, 1, None)
    logits = bench.saturated_logits(spec, -1.0, torch.device("cpu"))
    assert set(logits.unique().tolist()) == {-1.0, bench.SATURATED_LOGIT}
    assert (logits > 0).float().mean().item() == pytest.approx(bench.SATURATED_SHARE, abs=0.02)


def test_sampling(device):
    bench = module("bench_sampling")
    result = bench.measure_all(device, bench.Sizes("demo", SCENE, repeats=1, settings=SETTINGS))
    names = [row["operation"] for row in result["rows"]]
    for start in ("static/dynamic pixels", "colours", "rays", "stratified_samples, 8", "proposal density, one launch"):
        assert any(name.startswith(start) for name in names), start
    assert any(name.startswith("weights and resample, 8 to 6") for name in names)
    parts = next(row for row in result["rows"] if row["operation"] == "proposal density, by its parts")
    assert parts["compared"] == "proposal density, one launch" and parts["ratio"] > 0
    page = bench.page({"stamp": STAMP, **result})
    assert [cell[0] for cell in table_rows(page)[1:]] == names
    assert "32 rays of 8 samples to 6" in page


def test_composite(device):
    bench = module("bench_composite")
    result = bench.measure_all(device, bench.Sizes("demo", repeats=1, settings=SETTINGS))
    rows = {row["operation"]: row for row in result["rows"]}
    for name in (
        "MLPs, forward",
        "MLPs, forward and gradient",
        "composite, 6, forward",
        "composite, 6, gradient",
        "render_loss, forward and gradient",
        "interlevel_loss, forward and gradient",
    ):
        assert rows[name]["ms"] > 0 and rows[name]["floor_bytes_ms"] > 0, name
    assert rows["MLPs under autograd, forward"]["compared"] == "MLPs, forward"
    optimizers = [name for name in rows if "Adam" in name]
    assert len(optimizers) == (3 if device.type == "cuda" else 0)
    assert [cell[0] for cell in table_rows(bench.page({"stamp": STAMP, **result}))[1:]] == list(rows)


def test_plain_parts_of_the_composite_benchmark_compute_the_same(tiny_config):
    """What the fast paths are compared with is the same function."""
    from msth_taichi.model.mlp import radiance
    from msth_taichi.model.renderer import RadianceField
    from msth_taichi.reference.distortion import distortion_loss

    bench = module("bench_composite")
    model = RadianceField(tiny_config, 1.0)
    features = torch.randn(model.field.encoding.num_outputs, 12)
    per_ray = torch.randn(bench.HARMONICS, 3)
    expected = radiance(features, per_ray, model.field.density_mlp, model.field.color_mlp)
    for value, target in zip(bench.plain_radiance(features, per_ray, model), expected, strict=True):
        torch.testing.assert_close(value, target)
    edges, weights = torch.rand(3, 6).sort(dim=1).values, torch.rand(3, 5)
    torch.testing.assert_close(bench.distortion(edges, weights), distortion_loss(edges, weights))


def test_training_step(device):
    bench = module("bench_training_step")
    sizes = bench.Sizes("demo", SCENE, 12, 16, alone=16, profiled=16, settings=(*SETTINGS, "training.steps=5100"))
    result = bench.measure_all(device, sizes)
    assert result["steady"]["early"]["updates"] == 0.5
    assert result["steady"]["late"]["first_step"] == bench.LATE + bench.SETTLING
    assert all(found["step_ms"] > 0 and found["issued_ms"] > 0 for found in result["steady"].values())
    kinds = set(bench.KINDS)
    phases = {bench.BATCHES, "proposals", "field: encoding", "field: MLPs", "losses", "backward", "optimiser", "rest"}
    assert set(result["phases_ms"]) == kinds == set(result["launches"]["mean"])
    assert all(set(found) == phases for found in result["phases_ms"].values())
    with_update = result["launches"]["kernels"]["with update"]
    assert with_update["masked_encoding.backward"] == 2 and "proposal_density.forward" not in with_update
    # a CPU takes the proposal's parts one by one in either case
    fused = result["launches"]["kernels"]["without update"].get("proposal_density.forward", 0)
    assert fused == (1 if device.type == "cuda" else 0)
    names = {row["name"] for row in result["kernels"]}
    assert any(name.startswith("masked_encoding.backward") for name in names), names
    if device.type == "cuda":
        assert result["synchronizations"] == "none" and result["busy_ms"] > 0
        assert not any("range_for" in name for name in names), "a Taichi kernel whose launch was not found"
    page = bench.page({"stamp": STAMP, **result})
    assert {"proposals", "field: encoding", "backward", "all"} <= {cell[0] for cell in table_rows(page)}


def test_training_step_looks_at_frames_of_the_scene():
    """Frames traced in place are those that the scene would have read."""
    from msth_taichi.kernels import runtime
    from msth_taichi.scene.frames import FrameStore
    from msth_taichi.scene.scene import load_scene

    scene = load_scene(SCENE)
    images = scene.images("train")
    expected = FrameStore.from_images(images, scene.cameras, runtime.device(), DataConfig(), progress=False).pixels
    with module("bench_training_step").frames_traced_in_place():
        traced = FrameStore.from_images(images, scene.cameras, runtime.device(), DataConfig()).pixels
    assert torch.equal(traced, expected)


@pytest.fixture
def ablation(monkeypatch) -> Any:
    """The benchmark with two groups, of which one changes how long is trained."""
    from msth_taichi.scene.frames import FrameStore

    bench = module("ablation")
    monkeypatch.setattr(FrameStore, "from_images", staticmethod(FrameStore.from_images))  # frames are shared in place
    variants = {
        "preset": {"as it is": []},
        "optimisation": {"half the steps": ["training.steps=HALF"], "half the rays": ["training.rays_per_step=HALF"]},
    }
    monkeypatch.setattr(bench, "VARIANTS", variants)
    return bench


def run_ablation(bench: Any, monkeypatch, folder: Path, *options: str) -> dict[str, Any]:
    """Rows of `tiny.json` in a folder."""
    settings = [f"--set={setting}" for setting in (*SETTINGS, "training.steps=4", "rays.background=last_sample")]
    arguments = ["--arch=auto", f"--results={folder}", "--commit=abc", "--name=tiny", *settings, *options]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *arguments])
    bench.main()
    return json.loads((folder / "tiny.json").read_text())


def test_ablation(ablation, monkeypatch, tmp_path, device, capsys):
    data = f"--data=built-in={SCENE}:demo"
    first, second, both = (tmp_path / name for name in ("first", "second", "both"))
    rows = run_ablation(ablation, monkeypatch, first, data, "--shard=0/2")
    keys = ["built-in/preset/as it is/1", "built-in/optimisation/half the rays/1"]
    assert list(rows) == keys and all(key in capsys.readouterr().out for key in keys[:1])
    row = rows[keys[0]]
    for name in (
        "psnr",
        "psnr_affine",
        "psnr_worst",
        "ssim",
        "psnr_train",
        "iou",
        "depth_error",
        "minutes",
        "megabytes",
    ):
        assert math.isfinite(row[name]), name
    assert row["commit"] == "abc" and row["seed"] == 1 and "training.steps=4" in row["given"]
    assert rows[keys[1]]["settings"] == ["training.rays_per_step=16"]

    others = run_ablation(ablation, monkeypatch, second, data, "--shard=1/2", "--only=preset", "--only=optimisation")
    assert list(others) == ["built-in/optimisation/half the steps/1"]
    again = run_ablation(ablation, monkeypatch, first, data, "--only=preset", "--seeds=2")
    assert set(again) == {*keys, "built-in/preset/as it is/2"}, "rows of before are kept"
    assert again[keys[1]] == rows[keys[1]] and again[keys[0]]["psnr"] == pytest.approx(row["psnr"])

    merged = run_ablation(
        ablation, monkeypatch, both, f"--merge={first / 'tiny.json'}", f"--merge={second / 'tiny.json'}"
    )
    assert merged == again | others
    page = (both / "tiny.md").read_text()
    cells = {row[1]: row for row in table_rows(page)}
    assert list(cells) == ["variant", "as it is", "half the steps", "half the rays"]
    assert cells["as it is"][2] == "2", "seeds of a row are averaged"
    mean = sum(again[f"built-in/preset/as it is/{seed}"]["psnr"] for seed in (1, 2)) / 2
    assert cells["as it is"][cells["variant"].index("PSNR")] == f"{mean:.2f}"
    assert "## built-in" in page and "| abc |" in page


def test_ablation_leaves_out_what_data_have_nothing_for(ablation, monkeypatch, tmp_path, device, capsys):
    from msth_taichi.scene.scene import Images

    monkeypatch.setattr(Images, "with_depth", lambda _: [])
    variants = {"regularisers": {"depth 1": ["loss.depth=1"]}, "preset": {"as it is": []}}
    monkeypatch.setattr(ablation, "VARIANTS", variants)
    assert list(run_ablation(ablation, monkeypatch, tmp_path, f"--data=a={SCENE}:demo")) == ["a/preset/as it is/1"]
    assert "a/regularisers/depth 1/1 left out: loss.depth = 1: no image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data=mutant:dnerf"], "--data mutant:dnerf: expected NAME=PATH:PRESET"),
        (["--data=a=b"], "expected NAME=PATH:PRESET"),
        ([f"--data=a={SCENE}:demo", "--only=luck"], "--only luck: no such group; there are preset, optimisation"),
    ],
)
def test_ablation_tells_what_it_cannot_run(ablation, monkeypatch, tmp_path, capsys, options, says):
    with pytest.raises(SystemExit) as stopped:
        run_ablation(ablation, monkeypatch, tmp_path, *options)
    assert stopped.value.code == 2 and says in capsys.readouterr().err


def test_ablation_leaves_out_a_row_that_does_not_suit_the_data(ablation, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(ablation.VARIANTS, "preset", {"of nothing": ["rays.ndc=true"], "as it is": []})
    rows = run_ablation(ablation, monkeypatch, tmp_path, f"--data=a={SCENE}:demo", "--only=preset")
    assert list(rows) == ["a/preset/as it is/1"]
    assert "a/preset/of nothing/1 left out: preset 'demo': settings: rays.ndc needs" in capsys.readouterr().out


def test_ablation_counts_from_what_the_preset_says():
    bench = module("ablation")
    assert bench.parse_capture("mutant=data/a:b:dnerf") == ("mutant", "data/a:b", "dnerf")
    found = bench.settings_of("demo", ["training.steps=HALF", "training.rays_per_step=TWICE", "loss.mask=1"], [])
    assert found == ["training.steps=550", "training.rays_per_step=1536", "loss.mask=1"]
    given = ["training.steps=31"]
    assert bench.settings_of("demo", ["training.steps=HALF"], given) == ["training.steps=15"]


@pytest.mark.parametrize("preset", ["multiview", "dnerf", "demo"])
def test_variants_of_the_ablation_can_be_set(preset):
    bench = module("ablation")
    for group, variants in bench.VARIANTS.items():
        for name, settings in variants.items():
            config = load_preset(preset, bench.settings_of(preset, settings, []))
            assert config.training.steps > 0, f"{group}/{name}"


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1, correlation: int | None = None) -> dict[str, Any]:
    args = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def test_a_trace_names_kernels_by_what_launched_them():
    profiling = module("profiling")
    raw = "forward_c92_0_kernel_3_range_for"
    events = [
        event("user_annotation", profiling.STEP, 0, 100),
        event("cpu_op", "_MaskedEncoding", 5, 20),
        event("user_annotation", profiling.PREFIX + "masked_encoding.forward", 10, 10),
        event("cuda_driver", "cuLaunchKernel", 12, 1, correlation=1),
        event("kernel", raw, 50, 30, tid=7, correlation=1),
        event("cpu_op", "aten::mm", 30, 10),
        event("cuda_runtime", "cudaLaunchKernel", 35, 1, correlation=2),
        event("kernel", "void gemm<float, (Kind)1>(float*, int)", 90, 20, tid=7, correlation=2),
        event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 100, 20, tid=7, correlation=3),
        event("kernel", "void lost<int>(int)", 200, 10, tid=7, correlation=4),
        event("cuda_runtime", "cudaDeviceSynchronize", 40, 5, correlation=5),
        event("cuda_runtime", "cudaDeviceSynchronize", 300, 5, correlation=6),
        {"ph": "M", "name": "process_name"},
    ]
    found = profiling.summary(events, steps=2)
    rows = {row["name"]: (row["ms"], row["count"]) for row in found["rows"]}
    assert rows == {
        "masked_encoding.forward [3]": (0.015, 0.5),
        "aten::mm": (0.01, 0.5),
        "Memcpy DtoD": (0.01, 0.5),
        "lost": (0.005, 0.5),
    }
    # 50 to 80, 90 to 120 once though two overlap there, 200 to 210
    assert found["busy_ms"] == pytest.approx(0.035)
    assert found["synchronizations"] == 0.5, "the one after the steps does not count"


def test_phases_leave_out_what_is_within_them(monkeypatch):
    spans = module("spans")
    clock = iter([0.0, 1.0, 3.0, 7.0, 8.0, 10.0])
    monkeypatch.setattr(spans.time, "perf_counter", lambda: next(clock))
    found = spans.Spans(torch.device("cpu"))
    with found.span("all"):
        for _ in range(2):
            with found.span("part"):
                pass
    assert found.take() == {"all": pytest.approx(1e3 * (10 - 2 - 1)), "part": pytest.approx(3e3)}
    assert found.take() == {}


def test_measured_functions_are_called_and_prepared():
    calls: list[str] = []
    module("common").measure(lambda: calls.append("run"), torch.device("cpu"), lambda: calls.append("ready"), repeats=2)
    assert calls == ["ready", "run"] * 3


def test_a_result_replaces_the_one_before_it(tmp_path):
    common = module("common")
    for text in ("old", "new"):
        common.save(tmp_path / "results", "step", {"value": text}, text)
    assert json.loads((tmp_path / "results" / "step.json").read_text()) == {"value": "new"}
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["step.json", "step.md"]
    stamp = common.stamp(torch.device("cpu"), "abc")
    assert {"device", "threads", "versions", "date", "commit"} == set(stamp)
    assert "commit abc" in common.origin(stamp) and torch.__version__ in common.origin(stamp)


def test_run_goes_on_after_a_failure_and_says_so(monkeypatch, capfd, tmp_path):
    run = module("run")
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    works = [sys.executable, "-c", ""]
    monkeypatch.setattr(run, "command", lambda name, options: fails if name == "encoding" else works)
    monkeypatch.setattr(sys, "argv", ["run.py", "--small", "--results", str(tmp_path), "--commit", "abc"])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    out = capfd.readouterr()
    assert stopped.value.code == 1 and "failed: encoding" in out.err
    assert out.out.count("written to") == len(run.NAMES) - 1


def test_run_starts_scripts_that_exist():
    run = module("run")
    options = module("options").arguments(None).parse_args(["--small", "--commit", "abc"])
    for name in run.NAMES:
        command = run.command(name, options)
        assert Path(command[1]).is_file() and command[-1] == "--small" and "abc" in command


def test_full_sizes_are_refused_on_a_cpu(tmp_path):
    command = [sys.executable, str(FOLDER / "bench_sampling.py"), "--arch", "cpu", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--small" in done.stderr
    assert not list(tmp_path.iterdir())


def test_export(tiny_run, tmp_path):
    bench = module("bench_export")
    rows = bench.measure_run(tiny_run.path, None, every=2)
    assert [row["bits"] for row in rows] == [16, 8] and {row["images"] for row in rows} == {2}
    assert all(abs(row["loss"]) < 0.1 and row["megabytes"] < row["megabytes_float32"] for row in rows)
    assert not (tiny_run.path / "eval").exists()
    page = bench.page({"stamp": STAMP, "rows": rows})
    assert [cells[2] for cells in table_rows(page)] == ["bits", "16", "8"] and "commit abc" in page
    assert bench.parse_data("a=b/c") == ("a", Path("b/c"))
    with pytest.raises(MsthError, match="--data a: expected NAME=PATH"):
        bench.parse_data("a")


def test_rendering(device):
    """Every shortcut has a row, the first of them shows the plain renderer's frames, and each looks up less."""
    bench = module("bench_rendering")
    sizes = bench.Sizes("demo", SCENE, 5, frames=2, plain=1, rounds=2, cells=8, settings=SETTINGS)
    result = bench.measure_all(device, sizes)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows)[:2] == ["plain", "nothing"] and rows["nothing"]["psnr_plain"] > 60
    looked_up = [row["samples"] for row in result["rows"] if row.get("samples")]
    assert looked_up == sorted(looked_up, reverse=True) and all(len(row["fps"]) == 2 for row in result["rows"])
    page = bench.page({"stamp": STAMP, **result})
    assert [cell[0] for cell in table_rows(page)[1 : len(rows) + 1]] == list(rows)


def test_segments(device):
    """Segments cover the frames once, each has both models' numbers, and seams are told apart from insides."""
    bench = module("bench_segments")
    scene = "synthetic:cameras=3,test_cameras=1,frames=9,width=16,height=12"
    result = bench.measure_seed(device, bench.Sizes("demo", scene, segment=3, steps=3, settings=SETTINGS), 1)
    result["stamp"] = STAMP
    assert [(row["first"], row["frames"]) for row in result["rows"]] == [(0, 3), (3, 3), (6, 3)]
    assert result["overlap"] == 2 and (result["steps"], result["first_steps"]) == (3, 4)
    values = [value for row in result["rows"] for name, value in row.items() if name.startswith(("psnr", "chain"))]
    assert all(math.isfinite(value) and value > 0 for value in values)
    assert set(result["seams"]) == {"seam_chain", "inside_chain", "cut_chain", "seam_truth", "inside_truth"}
    better = json.loads(json.dumps(result))
    better["rows"][0]["psnr_chain"] = result["rows"][0]["psnr_chain"] + 1
    gain = result["rows"][0]["psnr_chain"] - result["rows"][0]["psnr_single"]
    cells = table_rows(bench.page({"stamp": STAMP, "seeds": {"1": result, "2": better}}))
    assert [row[0] for row in cells[1:4]] == ["0 to 2", "3 to 5", "6 to 8"] and len(cells) == 3 + 2 + 5
    assert cells[1][3] == f"{gain + 0.5:+.2f} ({gain:+.2f} to {gain + 1:+.2f})"


def test_team_page():
    bench = module("bench_team")
    row = {"rays_per_process": 8, "step_ms": 2.0, "same_parameters": True, "stamp": STAMP}
    page = bench.page(
        [{**row, "processes": 1, "rays_per_second": 4000.0}, {**row, "processes": 2, "rays_per_second": 7600.0}]
    )
    assert [cells[4] for cells in table_rows(page)[1:]] == ["1.00", "1.90"]


def test_viewer(device):
    pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")
    bench = module("bench_viewer")
    result = bench.measure_all(device, bench.Sizes("demo", SCENE, 2, seconds=0.2, pairs=2, settings=SETTINGS))
    assert len(result["pairs"]) == 2 and all(
        value > 0 for value in numbers(result["pairs"], "alone", "beside", "share")
    )
    page = bench.page({"stamp": STAMP, **result})
    assert [cells[0] for cells in table_rows(page)] == ["pair", "1", "2"] and "commit abc" in page

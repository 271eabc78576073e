"""The command line: what it prints, what it refuses, and that asking for help is cheap."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import msth_taichi
from msth_taichi.cli import main

TINY = [
    "--set=training.rays_per_step=64",
    "--set=field.log2_static=8",
    "--set=field.log2_dynamic=8",
    "--set=field.mask_resolution=4",
]


@pytest.fixture
def msth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command in this process: msth("info", "demo") -> (status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["msth", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def refused(msth):
    """Run a command that has to fail with one line; return the line."""

    def run(*arguments: object) -> str:
        status, _, error = msth(*arguments)
        lines = [line for line in error.splitlines() if not line.startswith("frames:")]
        assert status == 2, error
        assert len(lines) == 1 and lines[0].startswith("error: "), error
        return lines[0]

    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "code",
    [
        "import msth_taichi",
        "import sys; sys.argv = ['msth', '--help']\nfrom msth_taichi.cli import main\nmain()",
    ],
    ids=["import", "help"],
)
def test_import_and_help_load_nothing_heavy(code):
    check = "import atexit, sys\natexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n"
    result = subprocess.run([sys.executable, "-c", check + code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.rpartition("LOADED")[2].split())
    assert "msth_taichi" in loaded
    assert not {"torch", "taichi", "numpy", "pydantic", "imageio", "rich"} & loaded


def test_module_and_script_are_one_program():
    result = subprocess.run([sys.executable, "-m", "msth_taichi", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"msth {msth_taichi.__version__}\n")


def test_front_door_names_exist_and_unknown_ones_do_not():
    for name in msth_taichi.__all__:
        assert getattr(msth_taichi, name) is not None
    assert set(dir(msth_taichi)) == set(msth_taichi.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode_scene'"):
        _ = msth_taichi.lode_scene


def test_help_lists_the_verbs(msth):
    for arguments in ((), ("--help",)):
        status, out, _ = msth(*arguments)
        assert status == 0
        assert all(verb in out for verb in ("demo", "train", "eval", "render", "info", "presets"))


def test_presets_have_descriptions(msth):
    status, out, _ = msth("presets")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0 and {"demo", "multiview", "dnerf", "monocular", "n3v"} <= set(lines)
    assert all(lines.values())


def test_info_of_a_data_set(msth):
    status, out, _ = msth("info", "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18")
    assert status == 0
    assert "4 static, 24 x 18 pixels" in out
    assert "12 images, 3 cameras" in out and "4 images, 1 cameras" in out


TRAIN = ["train", "demo", "--output", "RUN"]


def test_output_is_the_result_alone():
    """Taichi prints a banner on import and another line on start, to stdout."""
    command = [sys.executable, "-m", "msth_taichi", "info", "synthetic:frames=1"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.startswith("scene") and "aichi" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command"),
        (["train"], "Missing argument"),
        (["train", "demo", "--outptu", "x"], "No such option"),
        ([*TRAIN, "--steps", "0"], "--steps"),
        (TRAIN, "--preset is missing; choose one of demo"),
        ([*TRAIN, "--preset", "dmeo"], "did you mean 'demo'?"),
        ([*TRAIN, "--preset=demo", "--set=training.step=5"], "did you mean 'steps'?"),
        ([*TRAIN, "--preset=demo", "--set=trainig.steps=5"], "did you mean 'training'?"),
        ([*TRAIN, "--preset=demo", "--set=training.steps=-5"], "training.steps = -5"),
        ([*TRAIN, "--preset=demo", "--set=training.steps"], "section.key=value"),
        ([*TRAIN, "--preset=demo", "--arch=gpu"], "--arch gpu"),
        ([*TRAIN, "--resume"], "no checkpoint"),
        ([*TRAIN, "--resume", "--preset=demo"], "--resume takes its settings from"),
        (["train", "nowhere", "--output", "RUN", "--preset=demo"], "nowhere: no such data set"),
        (["info", "nowhere"], "nowhere: no such data set"),
        (["eval", "RUN"], "RUN: not a run folder"),
        (["render", "RUN", "--output", "out.mp4"], "RUN: not a run folder"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_bad_requests_get_one_line_and_write_nothing(arguments, says, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(refused, tmp_path):
    line = refused("train", "demo", "--preset=demo", "--arch=cuda", "--output", tmp_path / "run")
    assert "--arch cuda" in line and "--arch cpu" in line
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback_and_the_line(msth):
    status, _, error = msth("info", "nowhere", "--debug")
    assert status == 2
    assert "Traceback" in error and error.splitlines()[-1].startswith("error: nowhere")


@pytest.mark.parametrize("verb", [["train", "demo", "--preset=demo"], ["demo"]], ids=["train", "demo"])
def test_an_existing_run_stays_as_it_was(verb, refused, tiny_run_copy):
    before = tree(tiny_run_copy)
    line = refused(*verb, "--output", tiny_run_copy)
    assert str(tiny_run_copy) in line and "--overwrite" in line
    assert tree(tiny_run_copy) == before


def test_train_eval_render_and_info_agree(msth, tmp_path):
    run = tmp_path / "run"
    data = "synthetic:cameras=3,test_cameras=1,frames=2,width=24,height=18"
    status, out, error = msth("train", data, "--preset=demo", "--steps=3", "--output", run, *TINY, "--arch=cpu")
    assert status == 0, error
    assert "3 steps" in out and f"msth eval {run}" in out
    assert (run / "config.toml").is_file() and (run / "scene.json").is_file()

    status, out, error = msth("eval", run, "--every=1")
    assert status == 0, error
    result = json.loads(next((run / "eval").glob("step-*.json")).read_text())
    assert result["step"] == 3 and f"{result['psnr']:.2f}" in out

    video = tmp_path / "spiral.mp4"
    status, out, error = msth("render", run, "--path=spiral", "--frames=2", "--output", video)
    assert status == 0, error
    assert out.split() == [str(video)] and video.stat().st_size > 0

    status, out, error = msth("info", run)
    assert status == 0, error
    assert "step     3 of 3" in out and f"PSNR {result['psnr']:.2f}" in out

    status, out, error = msth("train", data, "--resume", "--steps=5", "--output", run, "--arch=cpu")
    assert status == 0, error
    assert "5 steps" in out
    assert "step     5 of 5" in msth("info", run)[1]


def test_an_interrupted_training_says_how_to_continue(msth, tiny_run, monkeypatch):
    stopped = dataclasses.replace(tiny_run, step=3)
    monkeypatch.setattr("msth_taichi.training.start.start_training", lambda *_, **__: stopped)
    status, out, _ = msth("train", "demo", "--preset=demo", "--output", "runs/a")
    assert status == 0
    assert "stopped at step 3" in out and "msth train demo --output runs/a --resume" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--outputs", "rgb,dept"], "dept"),
        (["--format", "gif"], "gif"),
        (["--path", "helix"], "helix"),
        (["--scale", "0"], "--scale"),
        (["--step", "12345"], "12345"),
    ],
)
def test_bad_renders_get_one_line_and_write_nothing(options, says, refused, tiny_run_copy, tmp_path):
    before = tree(tiny_run_copy)
    assert says in refused("render", tiny_run_copy, "--output", tmp_path / "out.mp4", *options)
    assert not (tmp_path / "out.mp4").exists() and tree(tiny_run_copy) == before


def test_an_existing_render_stays_as_it_was(refused, tiny_run_copy, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    assert "--overwrite" in refused("render", tiny_run_copy, "--output", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_a_truncated_checkpoint_is_named(refused, tiny_run_copy, tmp_path):
    model = max(tiny_run_copy.glob("checkpoints/*/model.safetensors"))
    model.write_bytes(model.read_bytes()[:-100])
    assert "model.safetensors" in refused("render", tiny_run_copy, "--output", tmp_path / "out.mp4")


def test_a_checkpoint_of_another_model_is_named(refused, tiny_run_copy, tmp_path):
    config = tiny_run_copy / "config.toml"
    text = config.read_text()
    changed = text.replace("log2_static = 8", "log2_static = 9", 1)
    assert changed != text
    config.write_text(changed)
    assert "model.safetensors" in refused("render", tiny_run_copy, "--output", tmp_path / "out.mp4")


def test_a_moved_data_set_is_named(refused, msth, tiny_run_copy, tmp_path):
    scene = json.loads((tiny_run_copy / "scene.json").read_text())
    scene |= {"format": "multiview", "path": str(tmp_path / "gone")}
    (tiny_run_copy / "scene.json").write_text(json.dumps(scene))
    line = refused("eval", tiny_run_copy)
    assert "gone" in line and "--data" in line
    shutil.rmtree(tiny_run_copy / "eval", ignore_errors=True)
    status, _, error = msth(
        "eval", tiny_run_copy, "--data", "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"
    )
    assert status == 0, error

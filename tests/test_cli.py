"""The command line: what it prints, what it refuses, and that asking for help is cheap."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import msth_taichi
from msth_taichi.cli import main
from tests.scene import data_sets

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
        assert status == 2, error
        assert len(error.splitlines()) == 1 and error.startswith("error: "), error
        return error

    return run


def tree(folder: Path) -> dict[str, bytes | None]:
    """All files with what they hold, and all folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


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
        assert all(verb in out for verb in ("demo", "train", "eval", "render", "export", "info", "cache", "presets"))


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
        ([*TRAIN, "--resume", "--overwrite"], "give one of them"),
        (["train", "demo", "--preset=demo", "--output", "x" * 300], "File name too long; check the path"),
        (["train", "nowhere", "--output", "RUN", "--preset=demo"], "nowhere: no such data set"),
        (["info", "nowhere"], "nowhere: no such data set"),
        (["eval", "RUN"], "RUN: not a run folder"),
        (["render", "RUN", "--output", "out.mp4"], "RUN: not a run folder"),
        (["export", "RUN", "--to", "points", "--output", "out.ply"], "RUN: not a run folder"),
        (["export", "RUN", "--output", "out.ply"], "--to"),
        (["info", "synthetic:framse=3"], "did you mean 'frames'?"),
        (["info", "synthetic:frames=0"], "frames"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_bad_requests_get_one_line_and_write_nothing(arguments, says, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(*arguments)
    assert not list(tmp_path.iterdir())


EXPORT = ["export", "--to=points", "--output=out.ply"]


@pytest.mark.parametrize("verb", [["eval"], ["render", "--output=out.mp4"], EXPORT, ["info"]], ids=lambda verb: verb[0])
@pytest.mark.parametrize("kind", ["file", "empty folder", "data set"])
def test_what_is_no_run_is_refused(verb, kind, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("thing")
    if kind == "file":
        run.touch()
    else:
        run.mkdir()
    if kind == "data set" and verb != ["info"]:
        data_sets.dnerf(run)
    before = tree(tmp_path)
    assert refused(*verb, run).startswith("error: thing: ")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("output", "options", "says"),
    [
        ("file", [], "--overwrite"),
        ("file", ["--overwrite"], "not a run folder"),
        ("file/run", [], "not a folder"),
        ("folder", [], "--overwrite"),
        ("folder", ["--overwrite"], "not a run folder"),
    ],
)
def test_what_is_no_run_is_not_replaced(output, options, says, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    before = tree(tmp_path)
    assert says in refused("train", "demo", "--preset=demo", "--output", tmp_path / output, *options)
    assert tree(tmp_path) == before


NOISE = np.random.default_rng(0).integers(0, 255, (data_sets.HEIGHT, data_sets.WIDTH, 4), np.uint8)


@pytest.mark.parametrize("name", ["train/r_001.png", "test/r_001.png", "val/r_000.png"])
@pytest.mark.parametrize("existing", [False, True], ids=["new", "overwrite"])
def test_a_truncated_image_is_found_before_training(name, existing, refused, tiny_run_copy, tmp_path):
    """The header is whole, so only decoding tells; noise, so that half of the file is not all of the picture."""
    data = data_sets.dnerf(tmp_path / "data")
    iio.imwrite(data / name, NOISE)
    cut(data / name)
    run = tiny_run_copy if existing else tmp_path / "run"
    before = tree(tmp_path)
    line = refused("train", data, "--preset=dnerf", "--output", run, *TINY, *(["--overwrite"] if existing else []))
    assert str(data / name) in line and "restore" in line
    assert tree(tmp_path) == before


@pytest.mark.parametrize("camera", ["cam00", "cam02"], ids=["held out", "training"])
def test_a_frame_that_cannot_be_decoded_is_found_before_training(camera, refused, tmp_path):
    data = data_sets.multiview(tmp_path / "data")
    file = data / "videos" / f"{camera}.mp4"
    data_sets.encode(file, [np.roll(NOISE[..., :3], frame) for frame in range(data_sets.FRAMES)])
    values = bytearray(file.read_bytes())
    middle = len(values) // 2
    values[middle : middle + 1000] = bytes(1000)
    file.write_bytes(values)
    before = tree(tmp_path)
    line = refused("train", data, "--preset=multiview", "--output", tmp_path / "run", *TINY)
    assert str(file) in line and "restore" in line
    assert tree(tmp_path) == before


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


def test_a_long_video_is_one_run_of_segments(msth, refused, tmp_path):
    """As long as it is trained, looked at and resumed; and what does not go with it is refused."""
    data, run = "synthetic:cameras=2,test_cameras=1,frames=5,width=16,height=12", tmp_path / "run"
    train = ("train", data, "--preset=demo", "--steps=3", "--output", run, "--arch=cpu", *TINY)
    assert "--segment-frames" in refused(*train, "--segment-frames=1")
    assert "give --segment-frames too" in refused(*train, "--parallel-segments")
    assert not run.exists()
    status, out, _ = msth(*train, "--segment-frames=3")
    assert status == 0 and f"{run}: 3 steps; next: msth eval {run}" in out
    assert sorted(folder.name for folder in (run / "segments").iterdir()) == ["000", "001"]
    assert "already exists" in refused(*train)
    assert " 5 " in msth("eval", run, "--arch=cpu")[1].splitlines()[1]
    assert '<a href="segments/001/report.html">' in (run / "report.html").read_text()
    assert "3 of 3, each of 2 segments" in msth("info", run)[1]
    assert msth("render", run, "--path=test:0", "--arch=cpu", "--output", tmp_path / "video.mp4")[0] == 0
    assert len(iio.imread(tmp_path / "video.mp4")) == 5
    assert "is a segment" in refused("eval", run / "segments" / "001", "--arch=cpu")
    assert "several segments" in refused("eval", run, "--step=3", "--arch=cpu")
    resume = ("train", data, "--resume", "--output", run, "--arch=cpu")
    assert "share what the first one learnt in 3 steps" in refused(*resume, "--steps=4")
    assert "leave --segment-frames out" in refused(*resume, "--segment-frames=3")
    assert msth(*resume)[0] == 0
    shutil.rmtree(run / "segments" / "001")
    assert "segment 001 of 2 is not trained yet" in refused("eval", run, "--arch=cpu")
    assert msth(*resume)[0] == 0 and (run / "segments" / "001" / "checkpoints" / "step-00000003").is_dir()
    assert msth(*train, "--segment-frames=5", "--overwrite")[0] == 0
    assert not (run / "segments").exists(), "a video of one segment is trained as always"


def test_train_eval_render_and_info_agree(msth, tmp_path, monkeypatch):
    for extra in ("tensorboard", "wandb", "viser"):  # none of them may be needed
        monkeypatch.setitem(sys.modules, extra, None)
    run = tmp_path / "run"
    data = "synthetic:cameras=3,test_cameras=1,frames=2,width=24,height=18"
    status, out, error = msth("train", data, "--preset=demo", "--steps=3", "--output", run, *TINY, "--arch=cpu")
    assert status == 0, error
    assert "3 steps" in out and f"msth eval {run}" in out and f"report {run}/report.html" in out
    assert (run / "config.toml").is_file() and (run / "scene.json").is_file()

    status, out, error = msth("eval", run, "--every=1")
    assert status == 0, error
    result = json.loads(next((run / "eval").glob("step-*.json")).read_text())
    assert result["step"] == 3 and f"{result['psnr']:.2f}" in out
    assert f"{result['psnr']:.2f} dB" in (run / "report.html").read_text()

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


@pytest.mark.parametrize(
    ("vis", "says"),
    [
        ("tensorbord", "--vis tensorbord: unknown visualizer 'tensorbord' (did you mean 'tensorboard'?)"),
        ("wandb", "run: pip install 'msth_taichi[wandb]'"),
    ],
)
def test_a_visualizer_that_is_not_there_is_told_before_anything_is_written(vis, says, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert says in refused("train", DATA, "--preset=demo", "--output", tmp_path / "run", "--vis", vis)
    assert not (tmp_path / "run").exists()


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
        (["--path", "none.json"], "none.json: no such path file"),
        (["--path", "test:nobody"], "or one of the names test00"),
        (["--time", "freeze=2"], "--time freeze=2"),
        (["--speed", "0"], "--speed 0: out of range"),
        (["--fps", "nan"], "--fps nan: out of range"),
        (["--lens", "monocle"], "--lens monocle: unknown lens"),
        (["--size", "16"], "--size 16: not a size"),
        (["--scale", "0"], "--scale 0: out of range"),
        (["--scale", "-1"], "--scale -1: out of range"),
        (["--scale", "nan"], "--scale nan: out of range"),
        (["--scale", "1e6"], "at most 683"),
        (["--frames", "0"], "--frames"),
        (["--frames", "1000000000000"], "from 1 to 100000"),
        (["--outputs", ""], "choose from rgb"),
        (["--step", "12345"], "12345"),
    ],
)
def test_bad_renders_get_one_line_and_write_nothing(options, says, refused, tiny_run_copy, tmp_path):
    before = tree(tiny_run_copy)
    assert says in refused("render", tiny_run_copy, "--output", tmp_path / "out.mp4", *options)
    assert not (tmp_path / "out.mp4").exists() and tree(tiny_run_copy) == before


def test_a_path_is_rendered_with_the_time_lens_and_size_asked_for(msth, tiny_run, tmp_path):
    options = ["--path=test:0", "--time=sweep=0.5:0", "--speed=0.5", "--lens=equirectangular", "--size=16x8"]
    status, _, error = msth("render", tiny_run.path, "--output", tmp_path / "a", "--format=png", *options)
    assert status == 0, error
    frames = sorted((tmp_path / "a").iterdir())
    assert len(frames) == 5 and iio.imread(frames[0]).shape[:2] == (8, 16)


def test_an_existing_render_stays_as_it_was(refused, tiny_run_copy, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    assert "--overwrite" in refused("render", tiny_run_copy, "--output", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_renders_lie_in_the_run_and_jobs_in_a_file(msth, tiny_run_copy, tmp_path):
    status, out, error = msth("render", tiny_run_copy, "--path=orbit", "--frames=2", "--outputs=rgb,static")
    assert status == 0, error
    assert out.split() == [str(tiny_run_copy / "renders" / f"orbit-{name}.mp4") for name in ("rgb", "static")]

    file = tmp_path / "jobs.toml"
    file.write_text("[[job]]\npath = 'orbit'\noutputs = ['rgb', 'static']\nframes = 2\n[[job]]\nframes = 9\n")
    status, out, error = msth("render", tiny_run_copy, "--job", file, "--frames=2", "--shard=0/1")
    assert status == 0, error
    assert [Path(line).name for line in out.splitlines()] == ["orbit-rgb.mp4", "orbit-static.mp4", "spiral-rgb.mp4"]


def test_frames_that_fail_are_listed_with_a_status_of_their_own(msth, tiny_run_copy, monkeypatch):
    def fail(*_, **__):
        raise ValueError("bad luck")

    monkeypatch.setattr("msth_taichi.rendering.fast.FastRenderer.image", fail)
    status, out, error = msth("render", tiny_run_copy, "--frames=2")
    assert status == 1 and not out
    assert "spiral-rgb.mp4: 2 frames failed (frame 0: ValueError: bad luck; frame 1:" in error


def test_a_render_needs_a_run_or_jobs(refused, tmp_path):
    assert "--job FILE" in refused("render")
    assert "none.toml: not a readable job file" in refused("render", "--job", tmp_path / "none.toml")
    assert "--shard 4/4" in refused("render", "RUN", "--shard=4/4")


def test_exports_write_what_they_print(msth, tiny_run, tmp_path):
    cloud, cameras, model = (tmp_path / name for name in ("a.ply", "a.json", "a.safetensors"))
    assert msth("export", tiny_run.path, "--to=points", "--output", cloud)[:2] == (0, f"{cloud}\n")
    assert msth("export", tiny_run.path, "--to=cameras", "--output", cameras)[:2] == (0, f"{cameras}\n")
    status, out, _ = msth("export", tiny_run.path, "--to=points", "--times=2", "--output", tmp_path / "clouds")
    assert status == 0 and "2 files, from time 0 to 0.75" in out and len(list((tmp_path / "clouds").iterdir())) == 2
    status, out, _ = msth("export", tiny_run.path, "--to=compact", "--output", model)
    assert status == 0 and "4 test views: PSNR" in out and "dB lost" in out
    assert all(file.stat().st_size for file in (cloud, cameras, model))
    assert "step     10 of 10" in msth("info", model)[1]
    status, out, _ = msth("eval", model, "--every=4")
    assert status == 0 and f"report {tmp_path / 'a.results' / 'eval'}" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to=voxels"], "--to voxels: unknown; use one of points, mesh, cameras, compact"),
        (["--to=points", "--output=a.obj"], "ends in .ply"),
        (["--to=points", "--time=-0.1"], "time -0.1"),
        (["--to=points", "--times=0"], "--times 0"),
        (["--to=points", "--mode=moving"], "mode 'moving': unknown"),
        (["--to=points", "--box=0,0,0,1"], "--box 0,0,0,1: no box; write x0,y0,z0,x1,y1,z1"),
        (["--to=points", "--box=a"], "--box a: not numbers"),
        (["--to=compact", "--times=3", "--output=a.safetensors"], "--times 3: is for points and mesh"),
        (["--to=compact", "--bits=4", "--output=a.safetensors"], "--bits 4: unknown"),
        (["--to=compact", "--data=nowhere", "--output=a.safetensors"], "nowhere: no such data set"),
        (["--to=cameras", "--output=a.ply"], "ends in .json"),
        (["--to=points", "--step=12345"], "12345"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_exports_get_one_line_and_write_nothing(options, says, refused, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused("export", tiny_run.path, *(["--output=a.ply", *options]))
    assert not list(tmp_path.iterdir())


DATA = "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"  # of the fixture tiny_scene
VERBS = {
    "eval": ["eval", "RUN"],
    "render": ["render", "RUN", "--output=out.mp4", "--frames=1"],
    "info": ["info", "RUN"],
    "resume": ["train", DATA, "--resume", "--output=RUN", "--steps=12"],
}


@pytest.fixture
def run_in_reach(tiny_run_copy, monkeypatch) -> Path:
    """A run folder to spoil, called RUN in the current folder."""
    monkeypatch.chdir(tiny_run_copy.parent)
    return tiny_run_copy.rename("RUN")


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *((verb, name) for verb in VERBS for name in ("model.safetensors", "state.json")),
        ("resume", "optimizer.safetensors"),
    ],
)
def test_a_truncated_checkpoint_is_named(verb, name, refused, run_in_reach):
    for folder in run_in_reach.glob("checkpoints/step-*"):
        cut(folder / name)
    before = tree(Path())
    line = refused(*VERBS[verb])
    assert name in line and "to use an older checkpoint" in line
    assert tree(Path()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_of_another_model_is_named(verb, refused, run_in_reach):
    config = run_in_reach / "config.toml"
    text = config.read_text()
    changed = text.replace("log2_static = 8", "log2_static = 9", 1)
    assert changed != text
    config.write_text(changed)
    before = tree(Path())
    line = refused(*VERBS[verb])
    assert "model.safetensors: of another model size" in line and "config.toml" in line
    assert tree(Path()) == before


@pytest.mark.parametrize("verb", ["eval", "render", "info"])
@pytest.mark.parametrize(
    "spoil", [cut, Path.unlink, lambda file: file.write_bytes(b"\xff")], ids=["cut", "gone", "binary"]
)
@pytest.mark.parametrize("name", ["config.toml", "scene.json"])
def test_a_damaged_run_is_named(verb, spoil, name, refused, run_in_reach):
    spoil(run_in_reach / name)
    before = tree(Path())
    assert "RUN" in refused(*VERBS[verb])
    assert tree(Path()) == before


@pytest.mark.parametrize(
    ("data", "steps", "says"),
    [
        (DATA, 4, "RUN is at step 10; give --steps more"),
        (DATA.replace("frames=4", "frames=3"), 12, "its cameras are not those of RUN"),
        (DATA.replace("width=24", "width=48"), 12, "its cameras are not those of RUN"),
        ("nowhere", 12, "nowhere: no such data set"),
    ],
)
def test_a_bad_resume_leaves_the_run_as_it_was(data, steps, says, refused, run_in_reach):
    before = tree(Path())
    assert says in refused("train", data, "--resume", "--output=RUN", "--steps", steps)
    assert tree(Path()) == before


def test_a_run_resumes_and_evaluates_where_its_data_set_has_moved_to(msth, tmp_path):
    data, run = data_sets.dnerf(tmp_path / "data"), tmp_path / "run"
    status, _, error = msth("train", data, "--preset=dnerf", "--steps=1", "--output", run, *TINY)
    assert status == 0, error
    moved = data.rename(tmp_path / "moved")
    status, _, error = msth("train", moved, "--resume", "--steps=2", "--output", run)
    assert status == 0, error
    assert json.loads((run / "scene.json").read_text())["path"] == str(moved)
    status, out, error = msth("eval", run)
    assert status == 0 and "PSNR" in out, error


def test_a_gpu_out_of_memory_is_told_in_one_line(refused, monkeypatch):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr("msth_taichi.evaluation.report.info_lines", fail)
    assert "lower training.rays_per_step" in refused("info", "demo")


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("msth_taichi.evaluation.report.info_lines", fail)
    monkeypatch.setattr(sys, "argv", ["msth", "info", "demo"])
    with pytest.raises(RuntimeError, match="a fault"):
        main()


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


def test_cache_lists_and_clears(msth, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    key = "0123456789abcdef0123"
    (folder / f"{key}.frames").write_bytes(b"x" * 1000)
    (folder / f"{key}.json").write_text('{"source": "videos/cam00.mp4"}')
    (folder / f".{key}.1.frames").write_bytes(b"left by a killed process")
    status, out, _ = msth("cache", "--folder", str(folder))
    assert status == 0 and f"{key}.frames" in out and "cam00.mp4" in out
    status, out, _ = msth("cache", "--clear", "--folder", str(folder))
    assert status == 0 and "freed" in out and not list(folder.iterdir())
    assert msth("cache", "--folder", str(tmp_path / "none"))[0] == 0

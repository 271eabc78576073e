"""Lists of renders: what a job file may say, that one failure does not hold up the rest, and kills at any moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msth_taichi.errors import MsthError, RunError
from msth_taichi.rendering import jobs as module
from msth_taichi.rendering import render
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.jobs import Job, load_jobs, parse_job, render_jobs
from msth_taichi.rendering.shards import Shard

KILLS = Path(__file__).with_name("kills.py")


def job_file(folder: Path, text: str) -> Path:
    (folder / "jobs.toml").write_text(text)
    return folder / "jobs.toml"


def test_tables_have_the_defaults_of_the_top_and_options_overrule_both(tmp_path):
    file = job_file(
        tmp_path,
        """
        run = "runs/a"
        scale = 0.5
        outputs = "rgb, depth"
        [[job]]
        path = "orbit"
        [[job]]
        run = "runs/b"
        outputs = ["mask"]
        frames = 7
        time = "freeze=0.25"
        size = [64, 48]
        """,
    )
    first, second = load_jobs(file)
    assert (first.run, first.path, first.scale, first.outputs) == (Path("runs/a"), "orbit", 0.5, ("rgb", "depth"))
    assert (second.run, second.path, second.scale, second.outputs) == (Path("runs/b"), "spiral", 0.5, ("mask",))
    assert (second.frames, second.time, second.size, first.frames) == (7, "freeze=0.25", (64, 48), None)
    assert [job.scale for job in load_jobs(file, {"scale": 0.1})] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[job]]\nrun = 'a'\npaht = 'orbit'", "jobs.toml, job 1: unknown field 'paht' (did you mean 'path'?)"),
        ("[[job]]\npath = 'orbit'", "jobs.toml, job 1: no 'run'; name the run folder"),
        ("run = 'a'\n[[job]]\n[[job]]\nframes = 'many'", "jobs.toml, job 2: frames = 'many'"),
        ("run = 'a'", "no job; write each as a table that begins with [[job]]"),
        ("[job]\nrun = 'a'", "no job"),
        ("job = 3", "no job"),
        ("[[job]", "not a readable job file"),
    ],
)
def test_bad_job_files_get_one_line(tmp_path, text, says):
    with pytest.raises(RunError) as error:
        load_jobs(job_file(tmp_path, text))
    assert says in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(RunError, match=r"none\.toml: not a readable job file"):
        load_jobs(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, "r/renders/spiral-rgb.mp4"),
        ({"outputs": "rgb,depth", "path": "orbit"}, "r/renders/orbit.mp4"),  # to which the outputs' names are added
        ({"outputs": "rgb,depth", "mosaic": True, "format": "gif"}, "r/renders/spiral-mosaic.gif"),
        ({"outputs": "depth", "format": "npz", "path": "shots/fly.json"}, "r/renders/fly-depth"),
        ({"path": "test:cam.01"}, "r/renders/test:cam.01-rgb.mp4"),
        ({"path": "test:left/cam.02", "format": "png"}, "r/renders/test:left_cam.02-rgb"),
        ({"output": "out.mp4"}, "out.mp4"),
    ],
)
def test_renders_lie_in_the_run_unless_told(fields, place):
    job = parse_job({"run": "r", **fields}, "here")
    assert job.place(job.request()) == Path(place)


def test_a_path_is_made_from_what_a_job_gives(tiny_run_copy, monkeypatch):
    seen = {}

    def make_path(scene, name, **given):
        seen.update(given, name=name)
        raise RunError("enough")

    monkeypatch.setattr(module, "make_path", make_path)
    given = {"frames": 5, "time": "pause", "fps": 10.0, "speed": 2.0, "lens": "fisheye", "size": "64x48"}
    with pytest.raises(RunError, match="enough"):
        render_jobs([parse_job({"run": tiny_run_copy, "path": "orbit", **given}, "")])
    assert seen == {"name": "orbit", **given}


def test_a_time_that_is_a_number_gets_the_line_of_the_option(tiny_run_copy, tmp_path):
    (job,) = load_jobs(job_file(tmp_path, f"[[job]]\nrun = '{tiny_run_copy}'\ntime = 0.5"))
    with pytest.raises(RunError, match=r"--time 0\.5: not a way through time; use play, freeze=T"):
        render_jobs([job], progress=False)


def make_jobs(run: Path, folder: Path, *fields: dict) -> list[Job]:
    common = {"run": run, "frames": 2}
    return [parse_job({**common, "output": folder / f"{k}.mp4", **each}, "") for k, each in enumerate(fields)]


def test_jobs_are_rendered_and_then_skipped(tiny_run_copy, tmp_path, monkeypatch):
    jobs = make_jobs(tiny_run_copy, tmp_path, {}, {"path": "orbit", "outputs": "rgb,mask"})
    report = render_jobs(jobs, progress=False)
    assert [file.name for file in report.files] == ["0.mp4", "1-rgb.mp4", "1-mask.mp4"] and not report.failures
    assert report.lines() == [str(file) for file in report.files]
    monkeypatch.setattr(
        module, "load_run", lambda *_: pytest.fail("opened")
    )  # nothing is rendered, so no run is opened
    assert render_jobs(jobs, progress=False) == report


def test_a_training_that_goes_on_does_not_change_what_is_rendered(tiny_run_copy, tmp_path, monkeypatch):
    """The step that was the last when jobs were checked is the one that is opened."""
    later = tmp_path / "later"
    (tiny_run_copy / "checkpoints" / "step-00000010").rename(later)
    inner, steps = module.load_run, []

    def save_and_load(path, step, arch):
        if later.is_dir():
            later.rename(tiny_run_copy / "checkpoints" / "step-00000010")
        run = inner(path, step, arch)
        steps.append(run.step)
        return run

    monkeypatch.setattr(module, "load_run", save_and_load)
    jobs = make_jobs(tiny_run_copy, tmp_path, {"path": "test"}, {"path": "test", "step": 5})
    assert not render_jobs(jobs, progress=False).failures
    assert steps == [5]
    assert render_jobs(jobs[1:], progress=False).files == [tmp_path / "1.mp4"]
    with pytest.raises(RunError, match=r"0\.mp4: already exists"):  # now of another step
        render_jobs(jobs[:1], progress=False)


def test_mistakes_are_found_before_the_first_frame(tiny_run_copy, tmp_path):
    for wrong, says in [
        ({"outputs": "colour"}, "job 2: --outputs: unknown output 'colour'"),
        ({"path": "helix"}, "job 2: --path helix"),
        ({"frames": 0}, "job 2: --frames 0"),
        ({"run": tmp_path / "none"}, "job 2: .*none: not a run folder"),
        ({"step": 7}, "job 2: .*no checkpoint of step 7"),
        ({"output": tmp_path / "0.mp4"}, r"job 2: .*0\.mp4: is written by job 1 too"),
    ]:
        with pytest.raises(MsthError, match=says):
            render_jobs(make_jobs(tiny_run_copy, tmp_path, {}, wrong), progress=False)
    assert not list(tmp_path.glob("*.mp4*"))


def test_a_failure_does_not_hold_up_the_other_jobs(tiny_run_copy, tmp_path, monkeypatch):
    jobs = make_jobs(
        tiny_run_copy, tmp_path, {"path": "test"}, {"output": tmp_path / "file" / "a.mp4"}, {"path": "test"}
    )
    whole = FastRenderer.image
    calls = []

    def fail_once(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            (tmp_path / "file").write_text("in the way")  # since all was checked
            raise ValueError("bad luck")
        return whole(*arguments, **options)

    monkeypatch.setattr(FastRenderer, "image", fail_once)
    report = render_jobs(jobs, progress=False)
    assert [file.name for file in report.files] == ["2.mp4"]
    first, second = report.failures
    assert "0.mp4: 1 frame failed (frame 0: ValueError: bad luck)" in first and "cannot be written" in second
    (tmp_path / "file").unlink()
    calls.clear()
    calls.append(None)  # no more bad luck
    assert not render_jobs(jobs, progress=False).failures
    assert len(calls) == 1 + 1 + 2  # the frame that failed, and those of the second job


def test_nor_does_what_no_one_expected(tiny_run_copy, tmp_path, monkeypatch):
    def broken(path, *arguments):
        raise OverflowError("too large")

    monkeypatch.setattr(render, "write_animation", broken)
    fields = {"path": "test", "format": "gif", "output": tmp_path / "a.gif"}
    report = render_jobs(make_jobs(tiny_run_copy, tmp_path, fields, {"path": "test"}), progress=False)
    assert report.failures == [f"{tmp_path / 'a.gif'}: OverflowError: too large"]
    assert report.files == [tmp_path / "1.mp4"]


def test_a_shard_says_that_others_are_not_done(tiny_run_copy, tmp_path):
    jobs = make_jobs(tiny_run_copy, tmp_path, {})
    report = render_jobs(jobs, shard=Shard(0, 2), progress=False)
    assert report.waiting == [tmp_path / "0.mp4"] and "this part is rendered" in report.lines()[0]
    report = render_jobs(jobs, shard=Shard(1, 2), progress=False)
    assert report.files == [tmp_path / "0.mp4"] and not report.waiting


def test_kills_at_any_moment_change_nothing(tiny_run_copy, tmp_path):
    """In a process of its own, which forks the ones that are killed: kills.py says what it holds."""
    environment = {**os.environ, "PYTHONPATH": str(KILLS.parents[2])}
    command = [sys.executable, str(KILLS), str(tiny_run_copy), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout

"""Disks that fill up or go away: one line, and what was reached is kept."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from msth_taichi.config import load_config
from msth_taichi.errors import DataError, RunError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.scene.scene import load_scene
from msth_taichi.training.checkpoint import checkpoint_path, checkpoint_steps
from msth_taichi.training.record import read_metrics
from msth_taichi.training.run import load_run
from msth_taichi.training.trainer import Trainer, train
from tests.scene import data_sets
from tests.settings import changed, overrides

# a training whose cache is cut short after a few steps, as its disk would do that goes away
CACHE_GOES_AWAY = """
import sys
import shutil
from pathlib import Path
from msth_taichi import cli
from msth_taichi.training.trainer import Trainer

cache, inner = Path(sys.argv.pop(1)), Trainer.step

def step(self):
    if self.state.step == 37:
        (file,) = cache.glob("*.frames")
        with file.open("r+b") as opened:
            opened.truncate(0)
    return inner(self)

Trainer.step = step
cli.main()
"""


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_was_written(tiny_scene, tiny_config, tiny_run_copy):
    """A checkpoint that does not fit: the others stay and open, nothing half-written has its name."""
    run, config = tiny_run_copy, changed(tiny_config, "training.steps=20")
    size = (checkpoint_path(run) / "optimizer.safetensors").stat().st_size
    with files_up_to(size - 1000), pytest.raises(RunError, match=r"step-00000015: cannot be written .*; free the disk"):
        train(tiny_scene, config, run, arch="cpu", progress=False, resume=True)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000005", "step-00000010"]
    assert load_run(run, arch="cpu").step == 10
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # a line that was cut short
    assert train(tiny_scene, config, run, arch="cpu", progress=False, resume=True).step == 20
    assert [row["step"] for row in read_metrics(run)] == [10, 20] and checkpoint_steps(run) == [15, 20]


def test_pictures_of_an_evaluation_that_do_not_fit_are_told(tiny_scene, tiny_run_copy):
    run = load_run(tiny_run_copy, arch="cpu")
    before = sorted(tiny_run_copy.rglob("*"))
    with files_up_to(100), pytest.raises(RunError, match=r"eval/step-.*: cannot be written .*; free the disk"):
        evaluate(run, tiny_scene, progress=False)
    assert [path for path in sorted(tiny_run_copy.rglob("*")) if path.is_file() and path not in before] == []


def test_metrics_that_cannot_be_written_are_told(tiny_scene, tiny_config, tmp_path):
    trainer = Trainer(tiny_scene, tiny_config, tmp_path / "run", torch.device("cpu"), progress=False)
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be written .*; free the disk or choose another path"):
        trainer.run()


def test_a_cache_that_goes_away_ends_in_one_line_with_a_checkpoint(tiny_config, tmp_path):
    """Its pages are gone: by default, the system would end the process where it reads them."""
    data, run, cache = data_sets.multiview(tmp_path / "data"), tmp_path / "run", tmp_path / "cache"
    config = changed(tiny_config, "training.steps=2000", "training.checkpoint_every=1000", "data.ram_memory=0")
    config = changed(config, f"data.cache={cache}")
    options = [f"--set={setting}" for setting in overrides(config)]
    command = [str(cache), "train", str(data), f"--output={run}", "--arch=cpu", "--preset=demo", *options]
    process = subprocess.run([sys.executable, "-c", CACHE_GOES_AWAY, *command], capture_output=True, text=True)
    assert process.returncode == 2, process.stderr[-500:]
    (line,) = (line for line in process.stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in process.stderr
    (step,) = checkpoint_steps(run)
    assert 37 <= step < 1000 and ".frames: can no longer be read; bring its disk back" in line
    assert line.endswith(f"continue from step {step} with --resume")
    # the cache is written again
    config = changed(load_config(run / "config.toml"), f"training.steps={step + 1}")
    assert train(load_scene(data, config.data), config, run, arch="cpu", progress=False, resume=True).step == step + 1


def test_data_that_go_away_while_training_cost_no_step(tiny_config, tmp_path):
    scene = load_scene(data_sets.multiview(tmp_path / "data"))
    config = changed(tiny_config, "training.eval_every=3", "training.checkpoint_every=100", "training.steps=8")

    def evaluation(run) -> None:
        for file in (tmp_path / "data" / "videos").iterdir():
            file.unlink()
        list(scene.images("test").read())

    with pytest.raises(DataError, match=r"cam00.mp4: unreadable .*; continue from step 3 with --resume"):
        train(scene, config, tmp_path / "run", arch="cpu", progress=False, on_evaluation=evaluation)
    assert checkpoint_steps(tmp_path / "run") == [3] and load_run(tmp_path / "run").step == 3


def test_a_run_folder_that_goes_away_as_well_is_told_in_one_line(tiny_scene, tiny_config, tmp_path):
    config = changed(tiny_config, "training.eval_every=3", "training.checkpoint_every=100")
    run = tmp_path / "run"

    def evaluation(_) -> None:
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints").write_text("in the way")
        raise DataError("a.mp4: gone; restore it")

    with pytest.raises(DataError, match=r"a.mp4: gone; restore it$"):
        train(tiny_scene, config, run, arch="cpu", progress=False, on_evaluation=evaluation)

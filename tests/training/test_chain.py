"""A long video in segments: what they share, how they are rendered as one, and what goes on where it stopped."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from msth_taichi.config import Config
from msth_taichi.errors import ConfigError, RunError
from msth_taichi.evaluation.evaluate import evaluate, scene_of
from msth_taichi.exporting.export import export
from msth_taichi.rendering import still
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.paths import make_path
from msth_taichi.rendering.plan import run_digest
from msth_taichi.rendering.render import render_path
from msth_taichi.rendering.still import StillView
from msth_taichi.rendering.view import StillViews, View
from msth_taichi.scene.scene import load_scene
from msth_taichi.training import chain as chain_module
from msth_taichi.training import long
from msth_taichi.training.chain import Chain
from msth_taichi.training.checkpoint import checkpoint_path, checkpoint_steps
from msth_taichi.training.long import train_segments
from msth_taichi.training.run import Run, load_run, write_run
from msth_taichi.training.segments import SHARED, cut_frames, frame_times, read_cut, segment_path
from msth_taichi.training.team import Team
from msth_taichi.training.trainer import Trainer, train
from msth_taichi.viewer.pictures import render_request
from msth_taichi.viewer.requests import Request
from tests.settings import changed

DATA = "synthetic:cameras=3,test_cameras=1,frames=9,width=24,height=18"
TIMES = [k / 9 for k in range(9)]


@pytest.fixture(scope="session")
def long_config(tiny_config: Config) -> Config:
    return changed(tiny_config, "cameras.colors=affine", "training.steps=6", "training.checkpoint_every=3")


def trained(
    config: Config,
    output: Path,
    stop_at: int | None = None,
    resume: bool = False,
    parallel: bool = False,
    team: Team | None = None,
):
    """Train three segments of `DATA`; its folders in the order in which they were trained, and the frames of each."""
    scene = load_scene(DATA)
    cut = read_cut(output) if resume else cut_frames(frame_times(scene), 3, parallel)
    seen: list[tuple[str, int]] = []

    def train_one(scene, config, path, **options) -> Run:
        seen.append((path.name, len(scene.images("train"))))
        stops = stop_at is not None and path.name == f"{stop_at:03d}"
        fewer = changed(config, "training.steps=3", f"training.schedule_steps={config.training.steps}")
        given = fewer if stops else config
        run = train(scene, given, path, overwrite=not options["resume"], progress=False, **options)
        if stops:
            write_run(path, config, run.scene)
        return run

    return train_segments(scene, config, output, cut, train_one, resume=resume, team=team), seen


@pytest.fixture(scope="session")
def long_run(long_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three segments; shared, so leave its folder as it is."""
    run, seen = trained(long_config, tmp_path_factory.mktemp("long") / "run")
    assert seen == [("000", 15), ("001", 15), ("002", 9)], "frames of other segments are not held"
    return run.path


@pytest.fixture
def chain(long_run: Path) -> Chain:
    run = load_run(long_run)
    assert isinstance(run, Chain)
    return run


def rgb(run: Run, time: float) -> torch.Tensor:
    return run.render("test00", time)["rgb"]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_path(folder) / "model.safetensors")


def test_segments_share_what_the_first_one_learnt(long_run):
    shared = load_file(long_run / SHARED)
    first = parameters(segment_path(long_run, 0))
    assert set(shared) == {"field.encoding.static_table", "proposals.0.encoding.static_table", "colors.values"}
    assert all(torch.equal(shared[name], first[name]) for name in shared)
    files = [segment_path(long_run, k) / SHARED for k in (1, 2)]
    assert {file.stat().st_ino for file in files} == {(long_run / SHARED).stat().st_ino}, "on disk once"
    for number in (1, 2):
        own = parameters(segment_path(long_run, number))
        assert set(own) == set(first) - set(shared)
        assert all(not torch.equal(own[name], first[name]) for name in own if name.startswith("field."))
        moments = load_file(segment_path(long_run, number) / "checkpoints" / "step-00000006" / "optimizer.safetensors")
        assert not any(name.partition("/")[2] in shared for name in moments)


def test_the_first_segment_is_trained_for_longer_on_a_schedule_as_long(long_run):
    steps = [checkpoint_steps(segment_path(long_run, k))[-1] for k in range(3)]
    assert steps == [9, 6, 6] == [load_run(segment_path(long_run, k)).config.training.steps for k in range(3)]
    assert load_run(long_run).step == 6


def test_a_first_segment_that_others_were_built_upon_is_not_trained_on(long_config, tmp_path, monkeypatch):
    """As an earlier version trained it, for no more steps than the others."""
    with monkeypatch.context() as earlier:
        earlier.setattr(long, "LONGER", 1)
        stopped, _ = trained(long_config, tmp_path / "run", stop_at=1)
    _, seen = trained(long_config, stopped.path, resume=True)
    assert [name for name, _ in seen] == ["001", "002"]


def test_a_segment_begins_where_another_ended_but_for_what_its_masks_are_sure_of(long_config, long_run, tmp_path):
    """And only what is its own is trained, after an evaluation too."""
    trainer = Trainer(load_scene(DATA), long_config, tmp_path, torch.device("cpu"), progress=False)
    trainer.begin(segment_path(long_run, 0))
    shared, first = load_file(long_run / SHARED), parameters(segment_path(long_run, 0))
    for name, parameter in trainer.model.named_parameters():
        if name.endswith("mask_logits"):
            assert parameter.min() == long_config.field.mask_init and parameter.max() <= 0
            assert not torch.equal(parameter, first[name])
        else:
            assert torch.equal(parameter, first[name]), name
        assert parameter.requires_grad == (name not in shared)


def test_all_of_a_team_begin_with_the_same_masks(long_config, long_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Team, "least", lambda self, value: torch.full_like(value, -7.0))  # as another one says
    trainer = Trainer(load_scene(DATA), long_config, tmp_path, torch.device("cpu"), progress=False)
    trainer.begin(segment_path(long_run, 0))
    assert all((field.encoding.mask_logits == -7).all() for field in trainer.model.fields())


def test_each_moment_is_rendered_by_the_segments_that_know_it(chain, long_run):
    cut = read_cut(long_run)
    alone = [load_run(segment_path(long_run, k)) for k in range(3)]
    for time in (0.0, 0.2, 0.5, 0.65, 0.9, 1.0):
        expected = sum(w * rgb(alone[k], cut.segments[k].local(time)) for k, w in cut.weights(time))
        torch.testing.assert_close(rgb(chain, time), expected)
    between = (cut.segments[1].start + cut.segments[0].last) / 2
    parts = [rgb(alone[k], cut.segments[k].local(between)) for k in (0, 1)]
    torch.testing.assert_close(rgb(chain, between), (parts[0] + parts[1]) / 2)
    assert not torch.equal(*parts)


def test_nothing_jumps_where_segments_meet(chain):
    """Renders a hair apart are a hair apart, wherever the time."""
    for segment in chain.cut.segments:
        for time in (segment.start, segment.last):
            before, after = (rgb(chain, min(max(time + d, 0.0), 1.0)) for d in (-1e-5, 1e-5))
            assert (before - after).abs().max() < 1e-3


def test_at_most_two_segments_are_loaded_and_the_static_table_once(chain, monkeypatch):
    loaded: list[str] = []
    inner = chain_module.load_run
    monkeypatch.setattr(chain_module, "load_run", lambda path, arch: loaded.append(path.name) or inner(path, arch=arch))
    for time in [*TIMES, 0.0]:
        rgb(chain, time)
        assert len(chain._runs) <= 2
        tables = {run.model.field.encoding.static_table.data_ptr() for run in chain._runs.values()}
        tables |= {run.renderer.model.field.encoding.static_table.data_ptr() for run in chain._runs.values()}
        assert len(tables) == 1
    assert loaded == ["001", "002", "000"], "the first is there from the start, and playing loads each once"


def test_a_renderer_holds_no_second_copy_of_tables(tiny_run):
    model = FastRenderer(tiny_run.model).model
    assert (
        model is not tiny_run.model
        and model.field.encoding.mask_logits is not tiny_run.model.field.encoding.mask_logits
    )
    assert model.field.encoding.dynamic_table is tiny_run.model.field.encoding.dynamic_table


def test_a_run_of_segments_is_evaluated_and_exported_as_one(chain, long_run, tmp_path):
    copy = load_run(shutil.copytree(long_run, tmp_path / "copy"))
    result = evaluate(copy, scene_of(copy), progress=False)
    assert [frame["frame"] for frame in result["views"]["test00"]["frames"]] == list(range(9))
    assert result["psnr"] > 5 and result["mask"] is not None and (copy.path / "eval" / "step-00000006.json").is_file()
    export(copy, "cameras", tmp_path / "cameras.json")
    with pytest.raises(RunError, match=r"--to compact: .* several segments; export each, from .*000"):
        export(copy, "compact", tmp_path / "model.safetensors")
    with pytest.raises(RunError, match=r"several segments; leave it out, or give .*000"):
        load_run(long_run, step=6)
    assert load_run(segment_path(long_run, 1)).render("cam00", 0.5)["rgb"].shape == (18, 24, 3)


def test_a_video_runs_through_all_segments(chain, tmp_path):
    path = make_path(chain.scene, "test:0")
    assert len(path) == 9
    whole = render_path(chain, path, output=tmp_path / "whole", format="npz", progress=False)
    assert len(list(whole[0].iterdir())) == 9
    shown = View(chain, chain.scene.cameras, 3, 0.4).image("full")["rgb"]
    torch.testing.assert_close(shown, rgb(chain, 0.4))


def test_still_cameras_show_both_segments_of_a_moment(chain, monkeypatch):
    monkeypatch.setattr(still, "_CELLS_CPU", 8)
    path = make_path(chain.scene, "test:0")
    first, second = chain.cut.segments[:2]
    time = (second.start + first.last) / 2
    views = [StillView(chain.segment(k).renderer, path.cameras, 0, 0.9) for k in (0, 1)]
    expected = sum(view.image(s.local(time))["rgb"] for view, s in zip(views, (first, second), strict=True)) / 2
    torch.testing.assert_close(StillViews(chain, path, 0.9).image(0, time, "full")["rgb"], expected)


def test_a_viewer_shows_all_segments(chain):
    pose = chain.scene.transform.invert_poses(chain.scene.cameras.camera_to_world[0].double().numpy())
    renderer = chain.renderer
    for time in (0.1, 0.45, 0.9):
        request = Request(pose, 60.0, time, (16, 12), crop=np.array([[-9.0] * 3, [9.0] * 3]))
        picture, _ = render_request(chain, renderer, request, request.size)
        number = int(3 * time)
        alone, there = chain.segment(number), replace(request, time=chain.cut.segments[number].local(time))
        assert np.array_equal(picture, render_request(alone, alone.renderer, there, request.size)[0])


def test_images_depend_on_every_segment(long_run, tmp_path):
    copy = Path(shutil.copytree(long_run, tmp_path / "copy"))
    before = run_digest(copy)
    file = segment_path(copy, 2) / "checkpoints" / "step-00000006" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert run_digest(copy) != before


def test_a_stopped_chain_goes_on_where_it_was(long_config, long_run, tmp_path):
    stopped, seen = trained(long_config, tmp_path / "run", stop_at=1)
    assert [name for name, _ in seen] == ["000", "001"]
    assert stopped.step == 0 and checkpoint_steps(segment_path(stopped.path, 1)) == [3]
    with pytest.raises(RunError, match=r"segment 002 of 3 is not trained yet; go on with .* --resume"):
        load_run(stopped.path)
    run, seen = trained(long_config, stopped.path, resume=True)
    assert [name for name, _ in seen] == ["001", "002"] and run.step == 6
    for number in range(3):
        straight, halves = (parameters(segment_path(path, number)) for path in (long_run, run.path))
        assert all(torch.equal(straight[name], halves[name]) for name in straight), f"segment {number}"
    _, seen = trained(long_config, run.path, resume=True)
    assert not seen


def test_a_segment_whose_last_checkpoint_is_torn_is_trained_on(long_config, long_run, tmp_path, capsys):
    folder = Path(shutil.copytree(long_run, tmp_path / "run"))
    torn = segment_path(folder, 1) / "checkpoints" / "step-00000006" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:100])
    assert load_run(folder).step == 3 and "going back to" in capsys.readouterr().err
    run, seen = trained(long_config, folder, resume=True)
    assert [name for name, _ in seen] == ["001"] and run.step == 6


def test_what_any_segment_lacks_is_told_before_the_first_is_trained(long_config, tmp_path):
    config = changed(long_config, "sampler.kind=importance")
    scene = load_scene("synthetic:cameras=3,test_cameras=1,frames=9,width=24,height=18")
    late = scene.images("train")
    scene.splits["train"] = late.select(((late.frame < 7) | (late.frame == 8)).nonzero()[:, 0])
    with pytest.raises(ConfigError, match="two images or more of each camera"):
        train_segments(scene, config, tmp_path / "run", cut_frames(frame_times(load_scene(DATA)), 2), partial(train))
    assert not (tmp_path / "run").exists()


def test_parallel_segments_all_begin_from_the_first(long_config, long_run, tmp_path):
    run, _ = trained(long_config, tmp_path / "run", parallel=True)
    tables = [
        [parameters(segment_path(path, k))["field.encoding.dynamic_table"] for k in range(3)]
        for path in (run.path, long_run)
    ]
    same = [torch.equal(a, b) for a, b in zip(*tables, strict=True)]
    assert same == [True, True, False]


def test_segments_are_shared_out_over_processes(long_config, tmp_path):
    class Pair(Team):
        def wait(self) -> None:
            pass  # there is no other

    folder = trained(long_config, tmp_path / "run", stop_at=1, parallel=True)[0].path
    shutil.rmtree(segment_path(folder, 1))
    shared = [trained(long_config, folder, resume=True, team=Pair(rank, 2))[1] for rank in range(2)]
    assert [[name for name, _ in seen] for seen in shared] == [["001"], ["002"]]
    assert load_run(folder).step == 6


def test_what_cannot_be_trained_is_told_and_what_is_there_stays(long_config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("of an earlier run")
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        trained(changed(long_config, "training.precision=float16"), tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").rglob("*")] == ["config.toml"]

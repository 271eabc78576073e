"""The report: one page that shows a run, whatever is there of it."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.tracking.report import report_path, try_report, write_report
from msth_taichi.training import start
from msth_taichi.training.record import Record, read_record
from msth_taichi.training.run import Run, load_run
from msth_taichi.training.start import LAST_IMAGES, start_training
from tests.settings import changed

DATA = "synthetic:cameras=3,test_cameras=2,frames=12,width=24,height=18"


class Elements(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(page)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def pictures(self) -> list[str]:
        return [attributes["alt"] for tag, attributes in self.tags if tag == "img"]


@pytest.fixture
def run(tiny_run_copy) -> Run:
    return load_run(tiny_run_copy)


def report(run: Run) -> Elements:
    return Elements(write_report(run).read_text())


def test_it_shows_all_and_needs_nothing_else(run, tiny_scene):
    result = evaluate(run, tiny_scene, every=1, progress=False)
    found = report(run)
    for heading in ("Curves", "Held-out frames", "Worst frames", "Cameras", "Mask", "Settings", "Timings"):
        assert heading in found.text
    assert f"{result['psnr']:.2f} dB" in found.text and "held-out (test)" in found.text
    worst = result["pictures"]["worst"][0]
    assert f"test00, frame {worst['frame']}: PSNR {worst['psnr']:.2f}" in found.pictures()
    assert len(found.pictures()) == 3  # first frame, worst frame, cameras
    assert len([tag for tag, _ in found.tags if tag == "svg"]) == 4  # PSNR, loss, speed, mask
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    sources = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value.startswith("data:image/") for value in sources)
    assert "url(" not in (run.path / "report.html").read_text()


def test_shares_of_the_mask_are_those_of_its_values(run, tiny_scene):
    logits = run.model.field.encoding.mask_logits
    logits.fill_(3.0)
    logits[:25] = -3.0  # of 5 x 5 x 5
    evaluate(run, tiny_scene, every=1, progress=False)
    assert re.search(r"places of the field80.0 %20.0 %", report(run).text)
    assert "held-out pixels" in report(run).text


def test_text_of_users_cannot_become_markup(run, tiny_scene):
    name = "<img src=x onerror=alert(1)>"
    cameras = dataclasses.replace(run.scene.cameras, names=[name, *run.scene.cameras.names[1:]])
    scene = dataclasses.replace(run.scene, name=name, cameras=cameras)
    found = report(dataclasses.replace(run, scene=scene))
    assert name in found.text and all(tag != "img" or "onerror" not in attributes for tag, attributes in found.tags)


def test_without_held_out_views_it_says_so(run):
    scene = dataclasses.replace(run.scene, splits={"train": run.scene.images("train")})
    assert "no held-out views" in report(dataclasses.replace(run, scene=scene)).text


def test_of_a_run_without_log_evaluation_and_timings(run):
    for name in ("metrics.jsonl", "training.json"):
        (run.path / name).unlink()
    text = report(run).text
    assert "No step was logged" in text and "has not been evaluated" in text and "not recorded" in text


def test_pictures_that_were_removed_are_left_out(run, tiny_scene):
    evaluate(run, tiny_scene, every=1, progress=False)
    for file in (run.path / "eval").rglob("*.png"):
        file.unlink()
    assert len(report(run).pictures()) == 1


def test_a_failure_is_one_line(run, capsys):
    report_path(run).mkdir()
    assert try_report(run) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"warning: {report_path(run)} was not written")


@pytest.fixture
def start_tiny(tiny_config, tmp_path, monkeypatch):
    """start_tiny("training.steps=4") -> the Run in tmp_path/run, of settings that are small."""
    monkeypatch.setattr(start, "load_preset", lambda name, settings: changed(tiny_config, *settings))

    def run(*settings: str, **options) -> Run:
        return start_training(DATA, tmp_path / "run", preset="demo", settings=list(settings), arch="cpu", **options)

    return run


def test_a_training_ends_with_a_few_comparisons_and_the_report(start_tiny, tiny_config):
    run = start_tiny("training.steps=4", "training.learning_rate=0.123")
    found = Elements(report_path(run).read_text())
    assert f"{LAST_IMAGES} images of split test, one in 3 of each view" in found.text
    assert "training.learning_rate0.1230.02" in found.text  # this run, and the preset
    assert tiny_config.rays.background in found.text
    record = read_record(run.path)
    assert record["preset"] == "demo" and {"torch", "taichi", "msth_taichi", "python"} <= set(record["versions"])
    assert all(record["seconds"][part] > 0 for part in ("start", "training", "evaluation"))


def test_what_fails_after_the_last_step_does_not_spoil_the_training(start_tiny, monkeypatch, capsys):
    def fail(*_, **__):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(start, "evaluate", fail)
    monkeypatch.setattr("msth_taichi.tracking.report.write_report", fail)
    assert start_tiny("training.steps=2").step == 2
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 2 and all("of all things" in line for line in warnings)
    assert "msth eval" in warnings[0]


def test_seconds_add_up_over_sessions(tmp_path):
    import torch

    first = Record("demo")
    first.lap("start")
    first.seconds["training"] = 100.0
    first.write(tmp_path, torch.device("cpu"))
    second = Record()
    second.resume(tmp_path)
    second.lap("training")
    assert second.preset == "demo" and second.seconds["training"] > 100.0
    (tmp_path / "training.json").write_text("{")
    assert read_record(tmp_path) == {}

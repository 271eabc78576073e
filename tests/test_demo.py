"""What `msth demo` writes and says; its training is tested elsewhere."""

import imageio.v3 as iio

from msth_taichi import demo
from msth_taichi.training.run import load_run


def test_demo_evaluates_and_compares(tiny_run_copy, tiny_scene, monkeypatch):
    monkeypatch.setattr(demo, "start_training", lambda *_, **__: load_run(tiny_run_copy))
    monkeypatch.setattr(demo, "load_scene", lambda *_: tiny_scene)
    lines = list(demo.run_demo(tiny_run_copy))
    video = tiny_run_copy / "renders" / "comparison.mp4"
    text = "\n".join(lines)
    assert "mean" in text and "difference" in text and str(video) in text and lines[-1].endswith("minutes")
    assert list((tiny_run_copy / "eval").glob("step-*.json"))
    frames = iio.imread(video, plugin="pyav")
    assert len(frames) == tiny_scene.num_frames
    assert frames.shape[2] == 4 * 24 * 12 and frames.shape[1] > 18 * 12  # four panels, enlarged, under captions
    assert iio.imread(video.with_suffix(".png")).shape[:2] == frames.shape[1:3]

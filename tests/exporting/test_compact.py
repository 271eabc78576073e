"""A run in one file: small, whole, and as good as it says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from msth_taichi.errors import DataError, FrameError, RunError
from msth_taichi.evaluation.evaluate import evaluate
from msth_taichi.evaluation.report import info_lines
from msth_taichi.exporting.compact import export_compact
from msth_taichi.exporting.model_file import decode, encode
from msth_taichi.rendering.paths import make_path
from msth_taichi.rendering.render import render_path
from msth_taichi.scene.scene import Images
from msth_taichi.training.run import load_run, make_model
from tests.settings import changed


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """bits -> file and what was measured, of the tiny run."""
    folder = tmp_path_factory.mktemp("compact")
    return {
        bits: (
            folder / f"{bits}.safetensors",
            export_compact(tiny_run, folder / f"{bits}.safetensors", bits, progress=False),
        )
        for bits in (16, 8)
    }


@pytest.mark.parametrize(("bits", "closest"), [(16, 70), (8, 45)])
def test_a_file_renders_what_the_run_does(exported, tiny_run, bits, closest):
    file, result = exported[bits]
    run = load_run(file)
    assert (run.step, run.config, run.path) == (10, tiny_run.config, file)
    assert run.scene.cameras.names == tiny_run.scene.cameras.names
    assert result["psnr_to_run"] > closest and abs(result["loss"]) < 0.1
    expected, image = (r.render("test00", 0.5)["rgb"] for r in (tiny_run, run))
    assert (image - expected).abs().max() < 0.02
    assert not any(p.requires_grad for p in run.model.parameters())


def test_the_numbers_are_those_of_the_file_and_stand_in_it(exported, tiny_run, tiny_scene):
    """As an evaluation of the same views has them."""
    file, result = exported[8]
    assert result["bytes"] == file.stat().st_size
    assert result["bytes_float32"] == 4 * sum(p.numel() for p in tiny_run.model.parameters())
    assert (result["split"], result["views"]) == ("test", 4)
    scores = evaluate(load_run(file), tiny_scene, every=1, progress=False)
    assert result["psnr_file"] == pytest.approx(scores["psnr"], abs=1e-4)
    assert result["psnr_run"] - result["psnr_file"] == pytest.approx(result["loss"])
    with safe_open(file, "pt") as header:
        stored = json.loads(header.metadata()["quality"])
    assert stored == {name: value for name, value in result.items() if name != "bytes"}


def test_eight_bits_are_less_than_a_third_of_the_tables(tiny_scene, tiny_config):
    large = ("field.max_resolution=[32,32,32,8]", "field.log2_static=14", "field.log2_dynamic=14")
    model = make_model(changed(tiny_config, *large), tiny_scene)
    sizes = {bits: sum(t.nbytes for t in encode(model, bits).values()) for bits in (16, 8)}
    whole = sum(p.nbytes for p in model.parameters())
    assert sizes[16] < 0.6 * whole and sizes[8] < 0.3 * whole


def test_zeros_take_no_space(tiny_scene, tiny_config):
    model = make_model(tiny_config, tiny_scene)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "table" in name:
                parameter.zero_()
    sizes = {name: tensor.nbytes for name, tensor in encode(model, 8).items() if "table/codes" in name}
    assert len(sizes) == 4 and max(sizes.values()) < 100


def test_what_only_training_reads_is_left_out(tiny_scene, tiny_config):
    model = make_model(changed(tiny_config, "mask.objective=uncertainty"), tiny_scene)
    assert any(name.startswith("uncertainty.") for name, _ in model.named_parameters())
    parameters = decode(encode(model, 8))
    rest = dict(make_model(model.config, tiny_scene, for_training=False).named_parameters())
    assert parameters.keys() == rest.keys()
    mlps = [name for name in rest if "mlp" in name]
    assert mlps and all(torch.equal(parameters[name], model.get_parameter(name)) for name in mlps)


def test_a_file_is_rendered_evaluated_and_described_like_a_run(exported, tiny_scene, tmp_path):
    file = exported[8][0]
    run = load_run(file)
    frames = render_path(run, make_path(run.scene, "spiral", 2), output=tmp_path / "png", format="png", progress=False)
    assert len(list(frames[0].iterdir())) == 2
    evaluate(run, tiny_scene, every=2, progress=False)
    assert (file.with_suffix(".results") / "eval" / "step-00000010.md").is_file()
    lines = info_lines(str(file))
    assert lines[0] == f"run      {file}" and any(line.startswith("eval     step 10") for line in lines)
    again = export_compact(run, tmp_path / "again.safetensors", 8, progress=False)
    assert again["psnr_to_run"] > 60, "what is rounded once is not rounded much further"


def test_without_pictures_the_renders_alone_are_compared(tiny_run, tmp_path):
    run = load_run(tiny_run.path)
    moved = replace(run, scene=replace(run.scene, format="multiview", path=tmp_path / "gone"))
    result = export_compact(moved, tmp_path / "a.safetensors", progress=False)
    assert result["loss"] is None and result["psnr_file"] is None and result["psnr_to_run"] > 45
    with pytest.raises(DataError, match="nowhere"):
        export_compact(moved, tmp_path / "b.safetensors", data=tmp_path / "nowhere", progress=False)
    assert not (tmp_path / "b.safetensors").exists()


def test_pictures_that_cannot_be_decoded_are_done_without(tiny_run, tmp_path, monkeypatch):
    def damaged(images):
        raise FrameError("cam00.mp4: frame 1 is damaged", tmp_path / "cam00.mp4", 1)

    monkeypatch.setattr(Images, "read", damaged)
    result = export_compact(tiny_run, tmp_path / "a.safetensors", progress=False)
    assert result["loss"] is None and result["psnr_to_run"] > 45
    data = "synthetic:cameras=3,test_cameras=1,frames=4,width=24,height=18"
    with pytest.raises(DataError, match="frame 1 is damaged"):  # which was asked for
        export_compact(tiny_run, tmp_path / "b.safetensors", data=Path(data), progress=False)
    assert not (tmp_path / "b.safetensors").exists()


def test_wrong_requests_are_named_and_write_nothing(tiny_run, tmp_path):
    with pytest.raises(RunError, match="--bits 4: unknown; use 16"):
        export_compact(tiny_run, tmp_path / "a.safetensors", 4, progress=False)
    with pytest.raises(RunError, match=r"ends in \.safetensors"):
        export_compact(tiny_run, tmp_path / "a.pt", progress=False)
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(RunError, match="already exists; pass --overwrite"):
        export_compact(tiny_run, tmp_path / "a.safetensors", progress=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_file_holds_one_step(exported):
    assert load_run(exported[8][0], step=10).step == 10
    with pytest.raises(RunError, match="holds step 10 alone, not 5"):
        load_run(exported[8][0], step=5)


def spoiled(file, path, change):
    """The same file with other tensors or texts."""
    tensors = load_file(file)
    with safe_open(file, "pt") as header:
        texts = header.metadata()
    change(tensors, texts)
    save_file(tensors, path, texts)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors, texts: texts.pop("format"), "not a model file"),
        (lambda tensors, texts: texts.pop("scene"), "damaged"),
        (lambda tensors, texts: texts.update(config='{"training": {"stesp": 1}}'), "damaged"),
        (lambda tensors, texts: texts.update(scene="{"), "damaged"),
        (lambda tensors, texts: tensors.pop("field.encoding.static_table/scales"), "damaged"),
        (lambda tensors, texts: tensors["field.encoding.static_table/codes"].zero_(), "damaged"),
        (lambda tensors, texts: tensors.pop("field.density_mlp.weights.0"), "of another model"),
    ],
)
def test_damaged_files_are_named(exported, tmp_path, change, says):
    path = spoiled(exported[8][0], tmp_path / "spoiled.safetensors", change)
    with pytest.raises(RunError, match=rf"spoiled\.safetensors: .*{says}"):
        load_run(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.safetensors: .*not a model file"):
        load_run(tmp_path / "a.safetensors")


def test_a_truncated_file_is_named(exported, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(exported[8][0].read_bytes()[:-5])
    with pytest.raises(RunError, match=r"a\.safetensors: .*damaged"):
        load_run(tmp_path / "a.safetensors")

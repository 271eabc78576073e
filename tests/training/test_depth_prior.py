"""The depth prior: what a step is told about measured surfaces, and that a scene few cameras see gains by it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msth_taichi.errors import ConfigError
from msth_taichi.evaluation.surfaces import depth_errors
from msth_taichi.model.renderer import RadianceField
from msth_taichi.scene.depths import DepthStore, along_rays
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.training.run import Run
from msth_taichi.training.trainer import Trainer, train
from tests.comparison import assert_close
from tests.settings import changed

NDC = (
    "rays.ndc=true", "rays.contraction=none", "rays.spacing=uniform", "data.orientation=forward", "rays.near=0.3",
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        ("rays.spacing=piecewise",),
        ("rays.spacing=lindisp",),
        ("rays.spacing=uniform", "rays.far=9"),
        ("rays.contraction=none", "rays.far=9"),
    ],
)
def test_positions_are_those_of_samples(tiny_config, tiny_scene, device, settings):
    """At the edges of a ray's first samples s is theirs."""
    model, rays = rays_of(changed(tiny_config, *settings), tiny_scene, device)
    samples = model.sample(rays)
    for k in (1, 4, 7):
        s_edges, t_edges = samples.levels[0].s_edges[:, k], samples.levels[0].t_edges[:, k]
        there = rays.far > rays.near  # a ray that misses the box has no length
        assert_close(model.positions(rays, t_edges)[there], s_edges[there], 1e-4)
    assert (model.positions(rays, rays.far * 2)[there] == 1).all()
    for unknown in (0.0, 1e-3):
        assert (model.positions(rays, torch.full_like(rays.far, unknown)) == -1).all()


def test_positions_in_normalised_device_coordinates(tiny_config, device):
    """They are even in disparity: 1 - near / z for a camera that looks straight ahead."""
    scene = load_scene("synthetic:cameras=2,test_cameras=1,frames=1,width=8,height=6")
    cameras = scene.cameras.select([0])
    pose = torch.eye(4)[None, :3].contiguous()
    model = RadianceField(changed(tiny_config, *NDC), 1.0).to(device)
    zero, ahead = torch.zeros(1, dtype=torch.int64, device=device), torch.tensor([3], device=device)
    rays = model.rays(cameras.with_poses(pose).to(device), zero, ahead, ahead, torch.zeros(1, device=device))
    stretch = along_rays(cameras, 0, device)[3, 3]
    for z in (0.4, 1.0, 7.0):
        expected = (1 - 0.3 / z) / rays.far.item()
        assert model.positions(rays, (z * stretch)[None]).item() == pytest.approx(expected, rel=1e-4)
    assert model.positions(rays, (0.2 * stretch)[None]).item() == -1


def rays_of(config, scene: Scene, device, count: int = 40):
    generator = torch.Generator().manual_seed(3)
    model = RadianceField(config, 1.0).to(device)
    camera, row, column = (
        torch.randint(n, (count,), generator=generator).to(device) for n in (3, *scene.cameras.size(0)[::-1])
    )
    return model, model.rays(scene.cameras.to(device), camera, row, column, torch.zeros(count, device=device))


def test_a_batch_has_the_depth_of_its_pixels(tiny_config, tiny_scene, tmp_path, device):
    trainer = Trainer(tiny_scene, changed(tiny_config, "loss.depth=0.5"), tmp_path, device, progress=False)
    store = DepthStore.from_scene(tiny_scene, trainer.images, device, trainer.config.data, progress=False)
    plain = Trainer(tiny_scene, tiny_config, tmp_path, device, progress=False)
    for step in (0, 17):
        batch, other = trainer.batches.at(step), plain.batches.at(step)
        expected = store.gather(batch.image, batch.row, batch.column)
        assert torch.equal(batch.depth, trainer.model.positions(batch.rays, expected))
        assert (batch.depth > 0).all() and batch.depth.is_contiguous()
        assert other.depth is None and torch.equal(batch.target, other.target)
    terms = trainer.step()
    assert terms["depth"] > 0 and "depth" not in plain.step()


def test_a_scene_without_depth_maps_is_refused(tiny_config, tiny_scene, tmp_path):
    scene = load_scene(write_capture(tmp_path / "data", tiny_scene, measured=0), tiny_config.data)
    with pytest.raises(ConfigError, match=r"loss\.depth = 0\.1: no image of 'data'.*depth_file_path.*loss\.depth=0"):
        train(scene, changed(tiny_config, "loss.depth=0.1"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


SETTINGS = (
    "training.steps=80", "training.rays_per_step=256", "training.learning_rate=0.01", "rays.anneal_steps=50",
    *(
        f"{part}.{value}"
        for part in ("field", "proposals.0")
        for value in (
            "levels=4", "base_resolution=[8,8,8,2]", "max_resolution=[48,48,48,4]", "log2_static=12", "log2_dynamic=12",
            "mask_resolution=16", "hidden=16",
        )
    ),
    "field.hidden_color=16", "proposals.0.samples=32", "rays.samples=16", "rays.background=random",
)  # fmt: skip


def test_surfaces_that_few_cameras_see_are_found(tiny_config, tmp_path):
    """Three cameras do not say how far away a wall is; depth maps of two of them do, for a camera that is held out."""
    truth = load_scene("synthetic:cameras=3,test_cameras=1,frames=2,width=40,height=30")
    config = changed(tiny_config, *SETTINGS)
    scene = load_scene(write_capture(tmp_path / "data", truth, measured=2), config.data)
    assert len(scene.images("train").with_depth()) == 4 < len(scene.images("train"))
    errors = {}
    for weight in (0.0, 1.0):
        run = train(scene, changed(config, f"loss.depth={weight}"), tmp_path / f"run{weight}", progress=False)
        errors[weight] = held_out_error(run, truth)
    assert errors[1.0] < 0.6 * errors[0.0], errors
    assert "loss_depth" in json.loads((tmp_path / "run1.0/metrics.jsonl").read_text().splitlines()[-1])


def held_out_error(run: Run, truth: Scene) -> float:
    """Mean relative error of the depth in images that are tested on."""
    images, tests = run.scene.images("test"), truth.images("test")
    found = []
    for k, camera in enumerate(images.camera.tolist()):
        depth = run.render(camera, float(images.time[k]))["depth"]
        found.append(depth_errors(depth / run.scene.transform.scale, tests.depth(k))["depth_error_relative"])
    return sum(found) / len(found)


def write_capture(folder: Path, scene: Scene, measured: int) -> Path:
    """The built-in scene as nerfstudio's images, with depth maps of its first `measured` cameras, turn about PNG and
    NumPy files of millimetres."""
    for split in ("train", "test"):
        images, frames = scene.images(split), []
        for k, picture in enumerate(images.read()):
            camera = int(images.camera[k])
            name = f"images/{split}_{k}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / name)
            fx, fy, cx, cy = scene.cameras.intrinsics[camera].tolist()
            pose = scene.cameras.camera_to_world[camera].tolist()
            entry = {
                "file_path": name,
                "time": float(images.time[k]),
                **{"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy},
                "transform_matrix": [*pose, [0.0, 0.0, 0.0, 1.0]],
            }
            if split == "train" and camera < measured:
                stretch = along_rays(scene.cameras, camera, torch.device("cpu")).numpy()
                depth = images.depth(k) / stretch * 1000
                entry["depth_file_path"] = f"depth_{k}" + (".npy" if k % 2 else ".png")
                if k % 2:
                    np.save(folder / entry["depth_file_path"], depth)
                else:
                    Image.fromarray(np.round(depth).astype(np.uint16)).save(folder / entry["depth_file_path"])
            frames.append(entry)
        (folder / f"transforms_{split}.json").write_text(json.dumps({"frames": frames}))
    return folder

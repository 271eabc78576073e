"""Depth maps: read, fitted to images, turned into distances along rays, and drawn with the pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.lenses import EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC
from msth_taichi.scene.assemble import image_scene
from msth_taichi.scene.depths import DepthStore, along_rays
from msth_taichi.scene.scene import Scene, load_scene
from msth_taichi.scene.sources import DepthMap
from msth_taichi.scene.synthetic import synthetic_scene
from tests.comparison import assert_close
from tests.scene.rig import AS_IS, Rig, room_sweep

COUNT, SIZE = 4, (32, 24)
PLACED = DataConfig(orientation="up", center=True, auto_scale=True, scale_factor=0.3)


@pytest.fixture(scope="module")
def sweep() -> Rig:
    return room_sweep(COUNT)


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    """(K, H, W) distance along the rays of the sweep's views."""
    width, height = SIZE
    scene = synthetic_scene(cameras=COUNT, test_cameras=1, frames=COUNT, width=width, height=height)
    return np.stack([scene.images("train").depth(v * COUNT + v) for v in range(COUNT)])


def along_axis(distance: np.ndarray, rig: Rig, v: int) -> np.ndarray:
    """Distance along the optical axis, by the pinhole's formula."""
    fx, fy, cx, cy = rig.views[v].intrinsics
    row, column = np.mgrid[: distance.shape[0], : distance.shape[1]] + 0.5
    return distance / np.sqrt(1 + ((column - cx) / fx) ** 2 + ((row - cy) / fy) ** 2)


def write_depth(file: Path, depth: np.ndarray) -> Path:
    """A NumPy file of metres, or a 16-bit PNG of millimetres."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, depth.astype(np.float32))
    else:
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(file)
    return file


def sweep_scene(folder: Path, rig: Rig, depths: list[DepthMap | None], config: DataConfig = AS_IS) -> Scene:
    files = [folder / f"{v}.png" for v in range(COUNT)]
    for file, frame in zip(files, rig.frames[:, 0], strict=True):
        Image.fromarray(frame).save(file)
    return image_scene(
        folder,
        config,
        format="test",
        views=rig.views,
        files=files,
        camera=range(COUNT),
        times=rig.times,
        splits={"train": range(COUNT)},
        depths=depths,
    )


def whole(store: DepthStore, scene: Scene, image: int) -> torch.Tensor:
    """(H, W) of one image."""
    width, height = scene.cameras.size(int(scene.images("train").camera[image]))
    row, column = (x.flatten() for x in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    where = (x.to(store.device) for x in (torch.full_like(row, image), row, column))
    return store.gather(*where).view(height, width).cpu()


@pytest.mark.parametrize("config", [AS_IS, PLACED], ids=["as they are", "scaled"])
@pytest.mark.parametrize(("suffix", "unit", "tolerance"), [(".png", 1e-3, 1e-3), (".npy", 1.0, 5e-4)])
def test_distances_are_those_of_the_scene(tmp_path, sweep, exact, device, config, suffix, unit, tolerance):
    """Files hold distances along the axis in the user's units; the store those along rays in the scene's."""
    maps: list[DepthMap | None] = [
        DepthMap(write_depth(tmp_path / f"depth/{v}{suffix}", along_axis(exact[v], sweep, v)), unit)
        for v in range(COUNT)
    ]
    maps[2] = None
    scene = sweep_scene(tmp_path, sweep, maps, config)
    images = scene.images("train")
    assert images.with_depth() == [0, 1, 3]
    store = DepthStore.from_scene(scene, images, device, config, progress=False)
    for v in (0, 1, 3):
        assert_close(whole(store, scene, v) / scene.transform.scale, torch.from_numpy(exact[v]), tolerance)
    assert (whole(store, scene, 2) == 0).all()
    assert store.nbytes == 2 * 3 * SIZE[0] * SIZE[1]


def test_the_built_in_scene_is_known_exactly(tiny_scene, device):
    images = tiny_scene.images("train")
    store = DepthStore.from_scene(tiny_scene, images, device, DataConfig(), progress=False)
    for k in (0, 5, len(images) - 1):
        assert_close(whole(store, tiny_scene, k), torch.from_numpy(images.depth(k)), 5e-4)


def test_distances_that_are_not_on_the_device_are_the_same(tiny_scene, device):
    images = tiny_scene.images("train")
    here = DepthStore.from_scene(tiny_scene, images, device, DataConfig(), progress=False)
    there = DepthStore.from_scene(tiny_scene, images, device, DataConfig(gpu_memory=1e-9), progress=False)
    assert there.values.device.type == "cpu"
    assert torch.equal(whole(here, tiny_scene, 3), whole(there, tiny_scene, 3))


@pytest.mark.parametrize("stored", [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_what_is_no_distance_is_unknown(tmp_path, stored):
    depth = np.full((24, 32), 2.0)
    depth[3:5] = stored
    found = DepthMap(write_depth(tmp_path / "a.npy", depth), 0.5).read(SIZE)
    assert found.dtype == np.float32 and (found[3:5] == 0).all()
    assert (np.delete(found, [3, 4], axis=0) == 1).all()


@pytest.mark.parametrize("downscale", [2, 3, 5])
def test_a_smaller_image_has_distances_that_were_measured(tmp_path, downscale):
    """Next to an edge as well, where a mean would be half way between two surfaces."""
    depth = np.where(np.arange(32) < 17, 1.0, 9.0) * np.ones((24, 1))
    found = DepthMap(write_depth(tmp_path / "a.npy", depth), 1.0).read(SIZE, downscale)
    assert found.shape == (24 // downscale, 32 // downscale)
    assert set(np.unique(found)) == {1.0, 9.0}
    assert np.array_equal(found[0], np.where((np.arange(32 // downscale) + 0.5) * downscale <= 17, 1.0, 9.0))


def test_a_smaller_image_knows_what_most_of_a_block_does(tmp_path):
    depth = np.zeros((24, 32))
    depth[:2, :8] = [[1, 0, 1, 3, 2, 2, 0, 0], [0, 0, 0, 0, 5, 4, 0, 0]]
    found = DepthMap(write_depth(tmp_path / "a.npy", depth), 1.0).read(SIZE, 2)
    assert found[0, :4].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize("size", [(16, 12), (64, 48), (8, 6)])
def test_a_map_of_another_size_is_read_where_its_pixels_are(tmp_path, size, downscale):
    ramp = np.broadcast_to((np.arange(size[0]) + 0.5) / size[0], (size[1], size[0])) + 1
    found = DepthMap(write_depth(tmp_path / "a.npy", ramp), 1.0).read(SIZE, downscale)
    width = 32 // downscale
    assert found.shape == (24 // downscale, width)
    assert np.abs(found[3] - 1 - (np.arange(width) + 0.5) / width).max() <= 0.5 / size[0] + 1e-6


def test_downscaled_scenes(tmp_path, sweep, exact):
    maps = [
        DepthMap(write_depth(tmp_path / f"depth/{v}.npy", along_axis(exact[v], sweep, v)), 1.0) for v in range(COUNT)
    ]
    config = AS_IS.model_copy(update={"downscale": 2})
    scene = sweep_scene(tmp_path, sweep, maps, config)
    store = DepthStore.from_scene(scene, scene.images("train"), torch.device("cpu"), config, progress=False)
    found = whole(store, scene, 1).numpy()
    blocks = exact[1].reshape(12, 2, 16, 2)
    assert ((found >= blocks.min((1, 3)) * 0.97) & (found <= blocks.max((1, 3)) * 1.03)).all()


def test_lenses(device):
    """Perspective cameras measure along their axis, others along the ray."""
    cameras = load_scene("synthetic:cameras=2,test_cameras=1,frames=1,width=32,height=24").cameras
    lens = lambda code: replace(cameras, lens=torch.full_like(cameras.lens, code))  # noqa: E731
    bent = replace(lens(OPENCV), distortion=torch.tensor([[0.1, 0, 0, 0, 0, 0, 0, 0]]).expand(3, -1).contiguous())
    straight, curved = along_rays(cameras, 0, device).cpu(), along_rays(bent, 0, device).cpu()
    focal = cameras.intrinsics[0, 0].item()
    assert straight[0, 0].item() == pytest.approx((1 + (15.5**2 + 11.5**2) / focal**2) ** 0.5, rel=1e-6)
    assert torch.equal(along_rays(lens(OPENCV), 1, device).cpu(), straight)
    assert 1 < curved[0, 0] < straight[0, 0]
    for code in (FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC):
        assert (along_rays(lens(code), 0, device) == 1).all()


def png(folder: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(folder / "a.png")
    return folder / "a.png"


def damaged(folder: Path) -> Path:
    """A NumPy file that promises more than it holds."""
    np.save(folder / "a.npy", np.zeros((24, 32), np.float32))
    content = (folder / "a.npy").read_bytes()
    (folder / "a.npy").write_bytes(content.replace(b"(24, 32)", b"(24, 32000000000)")[:-50])
    return folder / "a.npy"


def pickled(folder: Path) -> Path:
    np.save(folder / "a.npy", np.array([[{}]], object), allow_pickle=True)
    return folder / "a.npy"


SPOILT = {
    "missing": (lambda f: f / "a.png", "missing"),
    "a picture": (lambda f: png(f, np.zeros((24, 32, 3), np.uint8)), "pixels of kind RGB"),
    "proportions": (lambda f: png(f, np.zeros((24, 24), np.uint16)), "24x24 for an image of 32x24"),
    "three numbers a pixel": (lambda f: write_depth(f / "a.npy", np.zeros((24, 32, 3))), "instead of a number"),
    "truth": (lambda f: np.save(f / "a.npy", np.zeros((24, 32), bool)) or f / "a.npy", "bool"),
    "nothing": (lambda f: np.save(f / "a.npy", np.zeros((0, 0))) or f / "a.npy", "unreadable|0x0"),
    "cut off": (damaged, "unreadable depth map"),
    "a program": (pickled, "unreadable depth map"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_a_bad_map_is_one_line_with_its_name(tmp_path, spoil, message):
    file = spoil(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        DepthMap(file, 1.0).read(SIZE)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("depth", "found"), [(0.0, "no distance at all"), (2e-3, "distances around 0.002")])
def test_maps_in_another_unit_are_told(tmp_path, sweep, depth, found):
    """Metres read as millimetres lie before every ray's start, and would be left out without a word."""
    maps = [DepthMap(write_depth(tmp_path / "a.npy", np.full((24, 32), depth)), 1.0)] * COUNT
    scene = sweep_scene(tmp_path, sweep, maps)
    with pytest.raises(DataError, match=rf"{found}.*rays start at 0\.05.*depth_unit_scale_factor"):
        DepthStore.from_scene(scene, scene.images("train"), torch.device("cpu"), AS_IS, 0.05, progress=False)


def test_maps_that_fit_nowhere_are_refused(tiny_scene):
    images = tiny_scene.images("train")
    with pytest.raises(DataError, match=r"depth maps need .* GB.*data\.downscale.*loss\.depth=0"):
        DepthStore.from_scene(tiny_scene, images, torch.device("cpu"), DataConfig(ram_memory=0.0), progress=False)

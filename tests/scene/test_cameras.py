import torch

from msth_taichi.lenses import FISHEYE, PINHOLE
from msth_taichi.scene.cameras import Cameras, make_cameras


def three_cameras() -> Cameras:
    return make_cameras(
        torch.randn(3, 3, 4).tolist(),
        [[20.0, 21.0, 8.0, 6.0]] * 3,
        torch.randn(3, 8).tolist(),
        [PINHOLE, FISHEYE, PINHOLE],
        [[16, 12], [16, 12], [20, 10]],
        ["a", "b", "c"],
    )


def test_select_keeps_rows_together():
    cameras = three_cameras()
    chosen = cameras.select(torch.tensor([2, 1]))
    assert chosen.names == ("c", "b") and chosen.lens.tolist() == [PINHOLE, FISHEYE]
    assert torch.equal(chosen.camera_to_world, cameras.camera_to_world[[2, 1]])
    assert torch.equal(chosen.distortion, cameras.distortion[[2, 1]])
    assert len(cameras.select([])) == 0


def test_scaled_intrinsics_see_the_same_rays():
    scaled = three_cameras().scaled(0.4)  # 6.4 x 4.8 becomes 6 x 5
    assert scaled.sizes.tolist() == [[6, 5], [6, 5], [8, 4]]
    fx, fy, cx, cy = scaled.intrinsics[0].tolist()
    # corners of the image stay in the same direction
    for x, x_before in ((0, 0), (6, 16)):
        assert abs((x - cx) / fx - (x_before - 8) / 20) < 1e-6
    for y, y_before in ((0, 0), (5, 12)):
        assert abs((y - cy) / fy - (y_before - 6) / 21) < 1e-6


def test_description_is_exact():
    cameras = three_cameras()
    again = Cameras.from_description(cameras.describe())
    for name in ("camera_to_world", "intrinsics", "distortion", "lens", "sizes"):
        assert torch.equal(getattr(again, name), getattr(cameras, name))
    assert again.names == ("a", "b", "c")

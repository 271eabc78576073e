"""Tiny data sets on disk, one a format, valid until a test spoils them."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np

WIDTH, HEIGHT = 16, 12
FRAMES = 5

Json = dict
Spoil = Callable[[Json], None]


def look_at(position: np.ndarray, target: np.ndarray | None = None) -> list[list[float]]:
    """4x4 OpenGL camera-to-world with the world's z up."""
    back = position - (np.zeros(3) if target is None else target)
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(back, right), back, position], 1)
    return matrix.tolist()


def poses(count: int) -> list[list[list[float]]]:
    """Cameras on a ring, not centred on the origin."""
    angles = np.linspace(0, 2, count)
    return [look_at(np.array([3 * np.cos(a) + 1, 3 * np.sin(a), 1 + 0.2 * np.sin(3 * a)])) for a in angles]


def write_json(path: Path, values: Json) -> None:
    path.write_text(json.dumps(values))


def edit_json(path: Path, spoil: Spoil) -> None:
    values = json.loads(path.read_text())
    spoil(values)
    write_json(path, values)


def picture(seed: int, channels: int = 3, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth, so that compression keeps it; differs with the seed."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([40 * (seed % 5) + 4 * x, 30 + 10 * y, np.full_like(x, 20 * (seed % 11))], -1)
    alpha = np.where(x < width // 2, 255, 0)[..., None]
    return np.concatenate([image, alpha], -1)[..., :channels].clip(0, 255).astype(np.uint8)


def write_video(path: Path, frames: int = FRAMES, seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, [picture(seed + t, width=width, height=height) for t in range(frames)])


def encode(path: Path, frames: list[np.ndarray]) -> None:
    """Frames (H, W, 3) uint8 as H.264; PyAV itself, as imageio collects garbage for 0.3 s after each video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def multiview(folder: Path, cameras: int = 4, test_cameras: int = 1, split: bool = True) -> Path:
    """`cameras` videos in transforms_train.json and transforms_test.json, or one transforms.json."""
    entries = []
    for i, pose in enumerate(poses(cameras)):
        name = f"videos/cam{i:02d}.mp4"
        write_video(folder / name, seed=i)
        entries.append({"file_path": name, "transform_matrix": pose, "fl_x": 20.0 + i, "cx": 8.0, "cy": 6.0})
    top = {"camera_model": "OPENCV", "num_frames": FRAMES, "fps": 25, "w": WIDTH, "h": HEIGHT}
    if split:
        write_json(folder / "transforms_train.json", {**top, "frames": entries[test_cameras:]})
        write_json(folder / "transforms_test.json", {**top, "frames": entries[:test_cameras]})
    else:
        write_json(folder / "transforms.json", {**top, "frames": entries})
    return folder


def dnerf(folder: Path, train: int = 4, channels: int = 4) -> Path:
    """RGBA images of a moving camera in train, val and test."""
    for split, count in (("train", train), ("val", 1), ("test", 2)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames = []
        for i, pose in enumerate(poses(count + 1)[:count]):
            iio.imwrite(folder / split / f"r_{i:03d}.png", picture(i, channels))
            time = i / max(count - 1, 1)
            frames.append({"file_path": f"./{split}/r_{i:03d}", "time": time, "transform_matrix": pose})
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": 0.8, "frames": frames})
    return folder


def images(folder: Path, count: int = 9) -> Path:
    """RGB images of a moving camera in one transforms.json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for i, pose in enumerate(poses(count)):
        name = f"images/{i:03d}.png"
        iio.imwrite(folder / name, picture(i))
        intrinsics = {"fl_x": 18.0, "fl_y": 19.0, "cx": 8.5, "cy": 6.5, "w": WIDTH, "h": HEIGHT}
        frames.append({"file_path": name, "time": i / count, "transform_matrix": pose, **intrinsics})
    write_json(folder / "transforms.json", {"camera_model": "PINHOLE", "frames": frames})
    return folder

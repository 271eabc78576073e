"""From files on disk to a Scene: cameras, times and frames in one normalised space."""

from msth_taichi.scene.cameras import Cameras
from msth_taichi.scene.frames import FrameStore
from msth_taichi.scene.normalize import SceneTransform
from msth_taichi.scene.scene import Images, Scene, describe, load_scene, scene_from_description

__all__ = [
    "Cameras",
    "FrameStore",
    "Images",
    "Scene",
    "SceneTransform",
    "describe",
    "load_scene",
    "scene_from_description",
]

"""A COLMAP workspace (images/ and a sparse model) to the project's format."""

from conversion import Copy, Output, Source, convert
from program import Overwrite, run

from msth_taichi.scene.formats import colmap


def convert_colmap(source: Source, output: Output, copy: Copy = False, overwrite: Overwrite = False) -> None:
    """A COLMAP workspace to transforms_train.json, transforms_test.json and images/.

    Training reads the workspace just as well: convert it to edit splits, poses or times. Videos of cameras that COLMAP
    calibrated from one image each are for convert_video.py.
    """
    convert(colmap, source, output, needs="sparse model (cameras.bin, images.bin)", copy=copy, overwrite=overwrite)


if __name__ == "__main__":
    run(convert_colmap)

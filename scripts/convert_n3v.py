"""Neural 3D Video (poses_bounds.npy, cam00.mp4 ...) to the project's format."""

from conversion import Copy, Output, Source, convert
from program import Overwrite, run

from msth_taichi.scene.formats import n3v


def convert_n3v(source: Source, output: Output, copy: Copy = False, overwrite: Overwrite = False) -> None:
    """Neural 3D Video to transforms_train.json, transforms_test.json and videos/.

    Training reads the original folder just as well: convert it to edit splits, poses or frame offsets.
    """
    convert(n3v, source, output, needs="poses_bounds.npy", copy=copy, overwrite=overwrite)


if __name__ == "__main__":
    run(convert_n3v)

"""Google's immersive light field video (models.json, camera_0001.mp4 ...) to the project's format."""

from conversion import Copy, Output, Source, convert
from program import Overwrite, run

from msth_taichi.scene.formats import immersive


def convert_immersive(source: Source, output: Output, copy: Copy = False, overwrite: Overwrite = False) -> None:
    """Google's immersive light field video to transforms_train.json, transforms_test.json and videos/.

    Training reads the original folder just as well: convert it to edit splits, poses or frame offsets.
    """
    convert(immersive, source, output, needs="models.json", copy=copy, overwrite=overwrite)


if __name__ == "__main__":
    run(convert_immersive)

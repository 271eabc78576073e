"""From a format on disk to the project's own, by the same reader that training would use."""

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from msth_taichi.config import DataConfig
from msth_taichi.errors import DataError
from msth_taichi.scene.scene import Scene
from msth_taichi.scene.write import write_transforms

Source = Annotated[Path, typer.Argument(help="Folder of one scene, as it was published.")]
Output = Annotated[Path, typer.Option(help="Folder to write.")]
Copy = Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking to them.")]

# centred, so that float32 is as fine as the rig is small, wherever its coordinates begin
PLACED = DataConfig(orientation="none", center=True, auto_scale=True, scale_factor=1.0)


def convert(
    reader: ModuleType, source: Path, output: Path, *, needs: str, copy: bool, overwrite: bool, downscale: int = 1
) -> None:
    """Read `source` with a format's module and write it to `output`; what is there already is left alone.

    Args:
        reader: a module of `msth_taichi.scene.formats`.
        needs: the file that tells the format, for the error.
    """
    require_apart(source, output)
    if is_converted(output) and not overwrite:
        print(f"{output} is there already; --overwrite replaces it")
        return
    if not source.is_dir() or not reader.detects(source):
        raise DataError(f"{source}: no {needs} in it; give the folder of one scene")
    write(reader.load(source, PLACED.model_copy(update={"downscale": downscale})), output, copy)


def write(scene: Scene, output: Path, copy: bool) -> None:
    """Write a scene and say what it is."""
    write_transforms(scene, output, copy=copy)
    parts = ", ".join(f"{len(set(images.camera.tolist()))} {split}" for split, images in scene.splits.items())
    kind = "cameras" if scene.static_cameras else "images"
    print(f"{output}: {kind}: {parts}; {scene.num_frames} frames at {scene.fps:g} per second")
    print(f"files are {'copies' if copy else 'links to the originals: keep those'}")
    print(f"next: msth info {output}")


def is_converted(output: Path) -> bool:
    """Whether a conversion was finished here."""
    return any((output / f"transforms{ending}.json").exists() for ending in ("", "_train"))


def require_apart(source: Path, output: Path) -> None:
    """DataError if one folder lies in the other, where the next run would read what this one wrote."""
    inner, outer = output.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise DataError(f"--output {output}: lies in the input; choose a folder beside it")

"""HyperNeRF, Nerfies and DyCheck (dataset.json, metadata.json, camera/, rgb/) to the project's format."""

from typing import Annotated

import typer
from conversion import Copy, Output, Source, convert
from program import Overwrite, run

from msth_taichi.errors import DataError
from msth_taichi.scene.formats import dycheck, hypernerf


def convert_hypernerf(
    source: Source,
    output: Output,
    scale: Annotated[int, typer.Option(help="Which images: those of rgb/2x are half as large.")] = 1,
    copy: Copy = False,
    overwrite: Overwrite = False,
) -> None:
    """HyperNeRF, Nerfies and DyCheck to transforms_train.json, transforms_test.json and images/.

    Training reads the original folder just as well: convert it to edit splits, poses or times.
    """
    if not (source / "rgb" / f"{scale}x").is_dir():
        found = sorted(path.name.removesuffix("x") for path in (source / "rgb").glob("*x"))
        remedy = f"choose from {', '.join(found)}" if found else "give the folder of one scene"
        raise DataError(f"--scale {scale}: no folder {source / 'rgb' / f'{scale}x'}; {remedy}")
    reader = dycheck if dycheck.detects(source) else hypernerf
    convert(reader, source, output, needs="dataset.json", copy=copy, overwrite=overwrite, downscale=scale)


if __name__ == "__main__":
    run(convert_hypernerf)

"""Download a scene of a public data set, check it and unpack it.

A download that breaks off is gone on with by the same command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from archives import require_space, unpack
from fetch import fetch
from program import Overwrite, run, size_text

from msth_taichi.errors import DataError


class Dataset(StrEnum):
    """Data sets that can be downloaded without an account."""

    n3v = "n3v"
    immersive = "immersive"
    dnerf = "dnerf"
    hypernerf = "hypernerf"
    campus = "campus"


@dataclass(frozen=True)
class Source:
    """Where a data set is published.

    Args:
        title: what its authors call it.
        page: where a person finds it.
        license: what the page says of its use.
        url: of a scene's archive, with {scene}.
        scenes: names, and the bytes of the archive as far as they are known.
        preset: what to train it with.
        together: one archive holds all scenes.
    """

    title: str
    page: str
    license: str
    url: str
    scenes: dict[str, int | None]
    preset: str
    together: bool = False


SOURCES = {
    Dataset.n3v: Source(
        title="Neural 3D Video",
        page="https://github.com/facebookresearch/Neural_3D_Video/releases/tag/v1.0",
        license="CC-BY-NC 4.0",
        url="https://github.com/facebookresearch/Neural_3D_Video/releases/download/v1.0/{scene}.zip",
        scenes={
            "coffee_martini": 1_186_324_684,
            "cook_spinach": None,
            "cut_roasted_beef": None,
            "flame_salmon_1": 4_990_000_000,  # four volumes
            "flame_steak": None,
            "sear_steak": None,
        },
        preset="n3v",
    ),
    Dataset.immersive: Source(
        title="Immersive Light Field Video",
        page="https://github.com/augmentedperception/deepview_video_dataset",
        license="see the page",
        url="https://storage.googleapis.com/deepview_video_raw_data/{scene}.zip",
        scenes={
            "01_Welder": 10_554_565_078,
            "02_Flames": 5_474_948_990,
            "03_Dog": 1_398_414_399,
            "04_Truck": 1_811_297_781,
            "05_Horse": 3_462_199_574,
            "06_Goats": 1_617_389_119,
            "07_Car": 3_122_877_276,
            "08_Pond": 1_780_220_296,
            "09_Alexa_Meade_Exhibit": 3_500_462_687,
            "10_Alexa_Meade_Face_Paint_1": 10_587_538_727,
            "11_Alexa_Meade_Face_Paint_2": 3_578_161_493,
            "12_Cave": 4_578_867_676,
            "13_Birds": 4_887_272_734,
            "14_Puppy": 8_927_189_887,
            "15_Branches": 179_620_533,
        },
        preset="immersive",
    ),
    Dataset.dnerf: Source(
        title="D-NeRF",
        page="https://github.com/albertpumarola/D-NeRF",
        license="see the page",
        url="https://www.dropbox.com/s/0bf6fl0ye2vz3vr/data.zip?dl=1",
        scenes=dict.fromkeys(
            ("bouncingballs", "hellwarrior", "hook", "jumpingjacks", "lego", "mutant", "standup", "trex")
        ),
        preset="dnerf",
        together=True,
    ),
    Dataset.hypernerf: Source(
        title="HyperNeRF",
        page="https://github.com/google/hypernerf/releases/tag/v0.1",
        license="see the page",
        url="https://github.com/google/hypernerf/releases/download/v0.1/{scene}.zip",
        scenes=dict.fromkeys(
            (
                "interp_aleks-teapot",
                "interp_chickchicken",
                "interp_cut-lemon",
                "interp_hand",
                "interp_slice-banana",
                "interp_torchocolate",
                "misc_americano",
                "misc_cross-hands",
                "misc_espresso",
                "misc_keyboard",
                "misc_oven-mitts",
                "misc_split-cookie",
                "misc_tamping",
                "vrig_3dprinter",
                "vrig_broom",
                "vrig_chicken",
                "vrig_peel-banana",
            )
        ),
        preset="monocular",
    ),
    Dataset.campus: Source(
        title="Campus",
        page="https://huggingface.co/datasets/masked-spacetime-hashing/Campus",
        license="Apache-2.0",
        url="https://huggingface.co/datasets/masked-spacetime-hashing/Campus/resolve/main/{scene}.zip",
        scenes={
            "01_talk": 2_120_000_000,
            "02_tourist1": 1_590_000_000,
            "02_tourist2": 3_630_000_000,
            "03_children1": 3_220_000_000,
            "03_children2": 4_600_000_000,
            "04_football": 1_600_000_000,
            "05_fountain": None,
            "06_graduates": None,
            "07_irrigate": None,
            "08_pedestrian": None,
        },
        preset="multiview",
    ),
}
"""Sizes serve to compare with the free space; what decides is what the server says."""

VOLUMES = {"flame_salmon_1": tuple(f"flame_salmon_1_split.{ending}" for ending in ("z01", "z02", "z03", "zip"))}
"""Archives that are published in several files."""


def download(
    dataset: Annotated[Dataset, typer.Argument(help="Which data set.")],
    scene: Annotated[str, typer.Option(help="Which scene; --list shows their names.")] = "",
    output: Annotated[Path, typer.Option(help="Folder that the scene's folder is put into.")] = Path("data"),
    url: Annotated[
        list[str] | None, typer.Option(help="Take the archive from here instead; volumes of a split zip in order.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archive after it is unpacked.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Show scenes and sizes, download nothing.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Download a scene of a public data set, check it and unpack it.

    The same command goes on with a download that broke off, and does nothing if the scene is there.
    """
    source = SOURCES[dataset]
    if show:
        _show(source)
        return
    scene = _known_scene(dataset, source, scene)
    folder = output / scene
    if folder.exists() and not overwrite:
        print(f"{folder} is there already; --overwrite replaces it")
        return
    archives = [output / Path(urlsplit(address).path).name for address in url or archive_urls(source, scene)]
    size = source.scenes[scene]
    if size and not any(path.exists() or path.with_name(path.name + ".part").exists() for path in archives):
        require_space(output, size)
    hint = f"see {source.page}, and give the archive's address with --url"
    print(f"{source.title}, {scene}: {size_text(size) if size else 'size unknown'}, license: {source.license}")
    for address, archive in zip(url or archive_urls(source, scene), archives, strict=True):
        print(f"from {address}")
        fetch(address, archive, hint=hint)
    total = sum(path.stat().st_size for path in archives)
    count = unpack(archives, folder, inside=scene if source.together else "")
    print(f"{folder}: {count} files, from an archive of {size_text(total)}")
    _settle(archives, keep or source.together, source.together)
    print(f"next: msth info {folder}\n      msth train {folder} --preset {source.preset}")


def archive_urls(source: Source, scene: str) -> list[str]:
    """Addresses of a scene's archive, of all volumes in order."""
    url = source.url.format(scene=scene)
    return [url.replace(f"{scene}.zip", volume) for volume in VOLUMES[scene]] if scene in VOLUMES else [url]


def _known_scene(dataset: Dataset, source: Source, scene: str) -> str:
    """The full name of a scene, of which HyperNeRF's may leave out the prefix, and flame_salmon_1's the number."""
    if not scene:
        raise DataError(f"--scene is missing; choose from {', '.join(source.scenes)}")
    matches = [name for name in source.scenes if scene in (name, name.partition("_")[2], name.removesuffix("_1"))]
    if len(matches) != 1:
        raise DataError(f"--scene {scene}: {dataset} has no such scene; choose from {', '.join(source.scenes)}")
    return matches[0]


def _settle(archives: Sequence[Path], keep: bool, together: bool) -> None:
    if keep:
        why = " (it holds the other scenes too)" if together else ""
        print(f"kept: {', '.join(map(str, archives))}{why}")
        return
    for path in archives:
        path.unlink()


def _show(source: Source) -> None:
    print(f"{source.title}, {source.page}, license: {source.license}")
    for name, size in source.scenes.items():
        print(f"  {name:28} {size_text(size) if size else ''}".rstrip())


if __name__ == "__main__":
    run(download)

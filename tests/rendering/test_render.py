"""Rendering along a path: what is written, under which name, what goes on after a failure, and what is left then."""

import dataclasses
import errno
import os
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from msth_taichi.errors import RunError
from msth_taichi.rendering import render, writers
from msth_taichi.rendering.fast import FastRenderer
from msth_taichi.rendering.formats import FORMATS
from msth_taichi.rendering.frame_files import load_frame
from msth_taichi.rendering.paths import make_path
from msth_taichi.rendering.pictures import depth_picture, depth_range
from msth_taichi.rendering.plan import Request, make_plan, run_digest
from msth_taichi.rendering.render import render_path, render_plan
from msth_taichi.rendering.shards import Shard
from msth_taichi.rendering.writers import mosaic, read_metadata

OUTPUTS = ["rgb", "depth", "accumulation", "mask", "static", "dynamic", "normals"]
EVERYWHERE = [format for format in FORMATS if format != "exr"]  # whatever is installed


@pytest.fixture
def path(tiny_run):
    return make_path(tiny_run.scene, "test", frames=3)


@pytest.fixture
def rendered(monkeypatch):
    """Times of the renders that were made; a time put into `rendered.fail` fails with the exception there."""

    class Rendered(list):
        fail: dict[float, BaseException] = {}  # noqa: RUF012

    times = Rendered()

    whole = FastRenderer.image

    def render_or_fail(self, cameras, index, time, **options):
        times.append(time)
        if time in times.fail:
            raise times.fail[time]
        return whole(self, cameras, index, time, **options)

    monkeypatch.setattr(FastRenderer, "image", render_or_fail)
    times.fail = {}
    return times


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_one_output_is_exactly_the_path(tiny_run, path, tmp_path):
    assert render_path(tiny_run, path, output=tmp_path / "a.mp4", progress=False) == [tmp_path / "a.mp4"]
    assert files(tmp_path) == ["a.mp4"]
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (3, 18, 24, 3)


def test_every_output_gets_its_own_video(tiny_run, path, tmp_path):
    written = render_path(tiny_run, path, OUTPUTS, output=tmp_path / "a.mp4", progress=False)
    assert [file.name for file in written] == [f"a-{name}.mp4" for name in OUTPUTS]
    assert files(tmp_path) == sorted(file.name for file in written)


def test_a_dot_in_the_name_of_a_folder_is_no_suffix(tmp_path):
    assert Request(("rgb", "mask"), "png").files(tmp_path / "cam.01")["mask"] == tmp_path / "cam.01-mask"


def test_images_are_the_renders_in_the_order_of_the_path(tiny_run, path, tmp_path):
    outputs = {"rgb": ("full", "rgb"), "static": ("static", "rgb"), "mask": ("full", "mask")}
    render_path(tiny_run, path, list(outputs), output=tmp_path / "a", format="png", progress=False)
    for frame, (camera, time) in enumerate(zip(path.camera, path.time, strict=True)):
        for name, (mode, key) in outputs.items():
            expected = tiny_run.renderer.image(path.cameras, int(camera), float(time), mode=mode)[key].cpu()
            found = iio.imread(tmp_path / f"a-{name}" / f"frame_{frame:05d}.png") / 255
            found = found if expected.ndim == 3 else found[..., 0]
            np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)


def test_still_cameras_show_the_same_whichever_frames_were_rendered_before(tiny_run, tmp_path):
    """Processes that share the frames start at different ones."""
    path = make_path(tiny_run.scene, "test:0", frames=3)
    plan = {}
    for shards in (1, 2):
        request = Request(("rgb", "mask"), "png", still=0.3)
        plan[shards] = make_plan(path, request, tmp_path / str(shards), run_digest(tiny_run.path))
        for index in reversed(range(shards)):
            render_plan(lambda: tiny_run, plan[shards], Shard(index, shards))
    for name in ("rgb", "mask"):
        for frame in range(3):
            one, other = (load_frame(tmp_path / f"{k}-{name}" / f"frame_{frame:05d}.png")[0] for k in (1, 2))
            np.testing.assert_array_equal(one, other)


def test_still_is_for_cameras_that_stand_still(tiny_run, tmp_path):
    for name, still, says in (("orbit", 0.9, "no camera of this path stands still"), ("test:0", 1.5, "--still 1.5")):
        with pytest.raises(RunError, match=says):
            render_path(tiny_run, make_path(tiny_run.scene, name, 3), output=tmp_path / "a.mp4", still=still)


def test_scale_changes_the_number_of_pixels_not_the_view(tiny_run, path, tmp_path):
    for scale in (1, 2):
        render_path(tiny_run, path, output=tmp_path / str(scale), format="png", scale=scale, progress=False)
    small, large = (iio.imread(tmp_path / str(scale) / "frame_00000.png") / 255 for scale in (1, 2))
    assert large.shape == (36, 48, 3)
    blocks = large.reshape(18, 2, 24, 2, 3).mean((1, 3))
    assert np.abs(blocks - small).mean() < 0.02


def test_what_moves_is_transparent_where_files_can_be_and_over_black_elsewhere(tiny_run, path, tmp_path):
    for format in ("png", "webp", "mp4"):
        output = tmp_path / f"a{FORMATS[format].suffix}"
        render_path(tiny_run, path, ["dynamic"], output=output, format=format, progress=False)
    png = iio.imread(tmp_path / "a" / "frame_00001.png").astype(float)
    with Image.open(tmp_path / "a.webp") as preview:
        preview.seek(1)
        webp = np.asarray(preview.convert("RGBA")).astype(float)
    assert png.shape == webp.shape == (18, 24, 4) and 0 < png[..., 3].mean() < 255
    np.testing.assert_allclose(webp[..., 3], png[..., 3], atol=1)
    video = iio.imread(tmp_path / "a.mp4", plugin="pyav")[1].astype(float)
    assert np.abs(video - png[..., :3] * png[..., 3:] / 255).mean() < 6


def test_numbers_are_those_of_the_data_set(tiny_run, path, tmp_path):
    render_path(tiny_run, path, ["depth"], output=tmp_path / "a", format="npz", progress=False)
    image = tiny_run.renderer.image(path.cameras, int(path.camera[2]), float(path.time[2]))
    depth, metadata = load_frame(tmp_path / "a" / "frame_00002.npz")
    solid = image["accumulation"].numpy() >= 0.5
    np.testing.assert_allclose(depth[solid], image["depth"].numpy()[solid] / tiny_run.scene.transform.scale, rtol=1e-6)
    assert np.isnan(depth[~solid]).all() and "units of the data set" in metadata["values"]


def test_depth_s_colours_are_those_of_the_first_frame_and_noted(tiny_run, path, tmp_path):
    for format in ("png", "mp4", "gif", "webp"):
        output = tmp_path / f"a{FORMATS[format].suffix}"
        render_path(tiny_run, path, ["depth"], output=output, format=format, progress=False)
    images = [
        tiny_run.renderer.image(path.cameras, int(c), float(t)) for c, t in zip(path.camera, path.time, strict=True)
    ]
    limits = depth_range(images[0])
    for frame, image in enumerate(images):
        found, metadata = load_frame(tmp_path / "a" / f"frame_{frame:05d}.png")
        np.testing.assert_allclose(found.astype(int), depth_picture(image, limits), atol=1)
        assert metadata["colors"].startswith("turbo of 1 / depth")
        np.testing.assert_allclose(metadata["limits"], np.array(limits) * tiny_run.scene.transform.scale, rtol=1e-5)
    for suffix in (".mp4", ".gif", ".webp"):
        noted = read_metadata(tmp_path / f"a{suffix}")
        assert {**noted, "job": ""} == {**metadata, "job": ""}


def test_a_mosaic_is_one_file_with_the_outputs_side_by_side(tiny_run, path, tmp_path):
    outputs = ["rgb", "mask", "dynamic"]
    written = render_path(tiny_run, path, outputs, output=tmp_path / "m", format="png", mosaic=True, progress=False)
    assert written == [tmp_path / "m"]
    render_path(tiny_run, path, outputs, output=tmp_path / "a", format="png", progress=False)
    single = {name: iio.imread(tmp_path / f"a-{name}" / "frame_00001.png") for name in outputs}
    single["dynamic"] = writers.over_black(single["dynamic"])
    np.testing.assert_array_equal(iio.imread(tmp_path / "m" / "frame_00001.png"), mosaic(single))
    assert list(load_frame(tmp_path / "m" / "frame_00000.png")[1]["panels"]) == outputs


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"outputs": ["rgb", "normal"]}, "unknown output 'normal'; choose from rgb, depth"),
        ({"outputs": []}, "unknown output"),
        ({"outputs": ["uncertainty"]}, "--outputs uncertainty: the run was trained without"),
        ({"format": "avi"}, "unknown format; use mp4, png"),
        ({"codec": "av1"}, "--codec av1: unknown codec; use h264 or h265"),
        ({"codec": "h265", "format": "png", "output": Path("a")}, "--codec h265: is for --format mp4"),
        ({"codec": "h265", "scale": 0.5}, "--codec h265: takes no images of 12x9, only from 16x16 on; leave it out"),
        (
            {"format": "webp", "scale": 16384 / 24, "output": Path("a.webp")},
            "holds no pictures of 16384x",
        ),
        ({"mosaic": True, "format": "npz", "output": Path("a")}, "--mosaic"),
        ({"output": Path("a.avi")}, "the name of mp4 ends in .mp4; use a.mp4 or --format png"),
        ({"output": Path("a.gif")}, "use a.mp4 or --format gif"),
        ({"output": Path("q.MP4"), "format": "png"}, "--output q.MP4: is the name of mp4, but png is a folder"),
        ({"output": Path("/"), "format": "png"}, "--output /: has no name"),
        ({"scale": 0.0}, "--scale 0"),
        ({"scale": float("nan")}, "--scale nan"),
        ({"scale": 1e6}, "--scale 1e+06"),
    ],
)
def test_wrong_requests_are_named_before_any_work(tiny_run, path, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError) as error:
        render_path(tiny_run, path, **{"output": Path("a.mp4"), "progress": False, **options})
    assert says in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_codec_that_is_not_there_is_named(monkeypatch):
    def missing(name, mode):
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(writers.av, "Codec", missing)
    with pytest.raises(RunError, match=r"--codec h265: .* no encoder libx265; use another --codec or --format png"):
        Request(codec="h265")


def test_cameras_of_several_sizes_make_no_video(tiny_run, path, tmp_path):
    sizes = path.cameras.sizes.clone()
    sizes[0] += 2
    path = dataclasses.replace(path, cameras=dataclasses.replace(path.cameras, sizes=sizes), camera=np.array([0, 1, 1]))
    with pytest.raises(RunError, match="sizes 24x18, 26x20; use --format png"):
        render_path(tiny_run, path, output=tmp_path / "a.mp4", progress=False)
    render_path(tiny_run, path, output=tmp_path / "a", format="png", progress=False)
    assert [iio.imread(tmp_path / "a" / f"frame_0000{k}.png").shape[1] for k in range(3)] == [26, 24, 24]


def test_what_exists_is_kept_unless_told(tiny_run, path, tmp_path):
    (tmp_path / "a-depth.mp4").write_bytes(b"mine")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    options = {"output": tmp_path / "a.mp4", "progress": False}
    with pytest.raises(RunError, match=r"a-depth\.mp4: already exists; pass --overwrite"):
        render_path(tiny_run, path, ["rgb", "depth"], **options)
    with pytest.raises(RunError, match=r"b: already exists; pass --overwrite"):
        render_path(tiny_run, path, output=tmp_path / "b", format="png", progress=False)
    assert files(tmp_path) == ["a-depth.mp4", "b/notes.txt"]
    render_path(tiny_run, path, ["rgb", "depth"], overwrite=True, **options)
    assert files(tmp_path) == ["a-depth.mp4", "a-rgb.mp4", "b/notes.txt"]


def test_places_that_cannot_be_written_are_named_before_the_first_frame(tiny_run, path, tmp_path, rendered):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    for output, format, says in [
        ("folder.mp4", "mp4", "folder.mp4: is a folder; remove it"),
        ("file", "png", "file: is no folder; remove it"),
        ("file/a.mp4", "mp4", "file: is no folder"),
        ("file/a/b", "npz", "file: is no folder"),
        ("nowhere", "png", "nowhere: is no folder"),
        ("nowhere/a.gif", "gif", "nowhere: is no folder"),
    ]:
        with pytest.raises(RunError, match=rf"{says}.* choose another --output"):
            render_path(tiny_run, path, output=tmp_path / output, format=format, overwrite=True, progress=False)
    assert not rendered and sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_is_not_to_be_written_is_named_before_the_first_frame(
    tiny_run, path, tmp_path, rendered, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)  # root may write anywhere
    with pytest.raises(RunError, match=f"{tmp_path}: cannot be written; change its permissions"):
        render_path(tiny_run, path, output=tmp_path / "new" / "a.mp4", progress=False)
    assert not rendered and not list(tmp_path.iterdir())


@pytest.mark.parametrize("outputs", [["rgb"], ["rgb", "mask"]])
def test_the_current_folder_can_be_written_to(tiny_run, path, tmp_path, monkeypatch, outputs):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written = render_path(tiny_run, path, outputs, output=Path(), format="png", progress=False)
    names = ["here"] if len(outputs) == 1 else ["here-rgb", "here-mask"]
    assert written == [tmp_path / name for name in names]
    assert len(list(written[0].iterdir())) == 3 and not list(tmp_path.glob("*.work"))
    assert (len(list(Path().iterdir())) == 3) == (len(outputs) == 1)  # it is the folder it was


@pytest.mark.parametrize("links", [True, False])
def test_folders_that_are_there_are_filled(tiny_run, path, tmp_path, monkeypatch, links):
    """A link to a folder, of a disk that takes links to files or of another one, such as a mounted one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "real")

    def another_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", another_disk)
    render_path(tiny_run, path, output=tmp_path / "a", format="png", progress=False)
    assert files(tmp_path) == [f"real/frame_0000{k}.png" for k in range(3)] and (tmp_path / "a").is_symlink()
    assert not (tmp_path / "a.work").exists()


def test_a_shorter_sequence_leaves_no_old_frames(tiny_run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for frames in (4, 2):
        path = make_path(tiny_run.scene, "spiral", frames)
        render_path(tiny_run, path, output=tmp_path, format="png", overwrite=True, progress=False)
    assert files(tmp_path) == ["frame_00000.png", "frame_00001.png", "notes.txt"]


def test_what_is_finished_is_not_rendered_again(tiny_run, path, tmp_path, rendered):
    for format in EVERYWHERE:
        options = {"output": tmp_path / f"a{FORMATS[format].suffix or format}", "format": format, "progress": False}
        first = render_path(tiny_run, path, ["rgb", "mask"], **options)
        count, before = len(rendered), contents(tmp_path)
        assert render_path(tiny_run, path, ["rgb", "mask"], **options) == first
        assert len(rendered) == count and contents(tmp_path) == before
        with pytest.raises(RunError, match="already exists"):
            render_path(tiny_run, path, ["rgb", "mask"], scale=0.5, **options)


@pytest.mark.parametrize("format", EVERYWHERE)
def test_an_interrupted_render_goes_on_and_ends_the_same(tiny_run, path, tmp_path, rendered, format):
    outputs, times = ["depth", "rgb"], [float(time) for time in path.time]

    def start(folder):
        return render_path(
            tiny_run,
            path,
            outputs,
            output=tmp_path / folder / f"a{FORMATS[format].suffix}",
            format=format,
            progress=False,
        )

    start("whole")
    rendered.clear()
    rendered.fail = {times[2]: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        start("stopped")
    assert all(name.startswith(f"a{FORMATS[format].suffix}.work") for name in files(tmp_path / "stopped"))
    damaged = tmp_path / "stopped" / f"a{FORMATS[format].suffix}.work" / "rgb" / f"frame_00001{FORMATS[format].frame}"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    rendered.clear()
    rendered.fail = {}
    start("stopped")
    assert rendered == times[1:]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_failing_frame_does_not_lose_the_others(tiny_run, path, tmp_path, rendered):
    time = float(path.time[1])
    rendered.fail = {time: ZeroDivisionError("by\nzero")}
    options = {"output": tmp_path / "a.mp4", "progress": False}
    with pytest.raises(
        RunError, match=r"a.mp4: 1 frame failed \(frame 1: ZeroDivisionError: by zero\); .* run it again"
    ):
        render_path(tiny_run, path, ["rgb"], **options)
    rendered.fail = {}
    rendered.clear()
    assert render_path(tiny_run, path, ["rgb"], **options) == [tmp_path / "a.mp4"]
    assert rendered == [time] and files(tmp_path) == ["a.mp4"]


def test_depth_takes_its_limits_from_the_first_frame_that_can_be_rendered(tiny_run, path, tmp_path, rendered):
    rendered.fail = {float(path.time[0]): ZeroDivisionError()}
    with pytest.raises(RunError, match="1 frame failed"):
        render_path(tiny_run, path, ["depth"], output=tmp_path / "a.mp4", progress=False)
    assert len([name for name in files(tmp_path) if name.endswith(".png")]) == 2


@pytest.mark.parametrize("broken", ["save_frame", "write_video"])
def test_a_full_disk_stops_and_keeps_what_is_there(tiny_run, path, tmp_path, monkeypatch, rendered, broken):
    write = getattr(render, broken)
    calls = []

    def full(file, *arguments):
        calls.append(file)
        if len(calls) == 2 or broken == "write_video":
            error = OSError(errno.ENOSPC, "No space left on device")
            raise RunError(f"{file}: cannot be written (No space left on device); free the disk") from error
        write(file, *arguments)

    long = dataclasses.replace(path, camera=np.repeat(path.camera, 20), time=np.linspace(0, 0.9, 60, dtype=np.float32))
    with monkeypatch.context() as patch:
        patch.setattr(render, broken, full)
        with pytest.raises(RunError, match=r"(frame_00001\.png|a\.mp4): cannot be written \(No space left"):
            render_path(tiny_run, long, output=tmp_path / "a.mp4", progress=False)
    assert (len(rendered) < 60) == (broken == "save_frame") and "a.mp4.work/rgb/frame_00000.png" in files(tmp_path)
    rendered.clear()
    assert render_path(tiny_run, long, output=tmp_path / "a.mp4", progress=False) == [tmp_path / "a.mp4"]
    assert len(rendered) < 60


def test_frames_of_another_render_are_neither_used_nor_lost(tiny_run, path, tmp_path, rendered):
    rendered.fail = {float(path.time[2]): KeyboardInterrupt()}
    options = {"output": tmp_path / "a.mp4", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        render_path(tiny_run, path, **options)
    rendered.fail = {}
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"a\.mp4\.work: frames of another render that was not finished; pass --overw"):
        render_path(tiny_run, path, scale=0.5, **options)
    assert contents(tmp_path) == before
    rendered.clear()
    render_path(tiny_run, path, scale=0.5, overwrite=True, **options)
    assert len(rendered) == 3 and files(tmp_path) == ["a.mp4"]
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (3, 10, 12, 3)  # an odd height gets one more row


@pytest.mark.parametrize("format", ["mp4", "png"])
def test_shards_share_the_frames_and_the_last_one_assembles(tiny_run, path, tmp_path, rendered, format):
    output = f"a{FORMATS[format].suffix}"
    whole = render_path(
        tiny_run, path, ["rgb", "depth"], output=tmp_path / "whole" / output, format=format, progress=False
    )
    request = Request(("rgb", "depth"), format)

    def start(index):
        plan = make_plan(path, request, tmp_path / "parts" / output, run_digest(tiny_run.path, tiny_run.step))
        done = []
        return render_plan(lambda: tiny_run, plan, Shard(index, 2), done.append), len(done)

    outcome, done = start(1)  # the second first: the first frame is not its own, but depth needs it
    assert not outcome.files and not outcome.failures and done == 1
    assert not [name for name in files(tmp_path / "parts") if ".work" not in name]
    outcome, done = start(0)
    assert [file.name for file in outcome.files] == [file.name for file in whole] and done == 2
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    rendered.clear()
    assert (
        start(1)[0].files == outcome.files
        and not rendered
        and contents(tmp_path / "parts") == contents(tmp_path / "whole")
    )


def test_other_parameters_are_another_job(tiny_run_copy):
    before = run_digest(tiny_run_copy)
    assert run_digest(tiny_run_copy) == before
    settings = tiny_run_copy / "config.toml"
    settings.write_text(settings.read_text().replace("far = 1000.0", "far = 900.0"))
    assert run_digest(tiny_run_copy) != before
    with pytest.raises(RunError, match="no checkpoint of step 3"):
        run_digest(tiny_run_copy, 3)


def test_near_is_red_and_far_is_blue():
    depth = torch.linspace(0.5, 4.0, 200).view(10, 20)
    image = {"depth": depth, "accumulation": torch.ones_like(depth)}
    picture = depth_picture(image, depth_range(image)).astype(int)
    # the ends of the colour map are nearly black
    assert picture[0, 4, 0] > picture[0, 4, 2] + 50 and picture[5, 0, 2] > picture[5, 0, 0] + 50
    unbounded = torch.where(depth > 3.9, 1e6, depth)  # a sky must not push all else into one colour
    low, high = depth_range({**image, "depth": unbounded})
    assert low < 0.3 and high > 1.5


def test_the_depth_of_nothing_is_black_and_leaves_the_other_colours_alone():
    depth = torch.linspace(0.5, 4.0, 200).view(10, 20)
    solid = torch.arange(20).expand(10, 20) < 12
    image = {"depth": torch.where(solid, depth, 1e-3), "accumulation": torch.where(solid, 0.9, 0.3)}
    limits = depth_range(image)
    picture = depth_picture(image, limits)
    assert limits[1] < 2.1 and not picture[~solid.numpy()].any() and picture[solid.numpy()].any(-1).all()
    empty = {**image, "accumulation": torch.zeros_like(depth)}
    assert not depth_picture(empty, depth_range(empty)).any()

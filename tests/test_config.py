"""Settings: presets, files and overrides give what they say, and mistakes are told in one helpful line."""

import tomllib

import pytest
from pydantic import ValidationError

from msth_taichi.config import (
    Config,
    ProposalConfig,
    dump_config,
    load_config,
    load_preset,
    parse_config,
    preset_description,
    preset_names,
)
from msth_taichi.errors import ConfigError

EVERY_SETTING_CHANGED = [
    "data.num_frames=30",
    "rays.near_render=0.5",
    "field.base_resolution=[8, 9, 10, 5]",
    "proposals.1.samples=96",
    "loss.sparse=1e-6",
    "loss.decay=0.25",
    "mask.objective=uncertainty",
    "cameras.colors=affine",
    "cameras.appearance=8",
    "sampler.kind=static_dynamic",
    "training.schedule=cosine",
    "training.schedule_steps=35000",
    "evaluation.split=val",
]


def refused(settings: list[str], values: dict | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(values or {}, settings, "here")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_presets_of_the_readme_are_there():
    assert {"demo", "multiview", "dnerf", "monocular", "n3v"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_say_what_they_are_for(name):
    config = load_preset(name)
    assert config != Config(), "a preset changes something"
    assert len(preset_description(name)) > 10 and not preset_description(name).startswith("#")
    assert config.training.learning_rate_end < config.training.learning_rate


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("settings", [[], EVERY_SETTING_CHANGED], ids=["as shipped", "changed"])
def test_a_saved_config_loads_to_an_equal_one(name, settings, tmp_path):
    config = load_preset(name, settings)
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config, "1.2.3"))
    assert load_config(path) == config
    assert tomllib.loads(path.read_text())["version"] == "1.2.3"


def test_overrides_reach_every_kind_of_value():
    config = load_preset("demo", EVERY_SETTING_CHANGED)
    assert config.data.num_frames == 30
    assert config.field.base_resolution == (8, 9, 10, 5)
    assert config.training.schedule == "cosine"
    assert load_preset("demo", ['training.schedule="cosine"']).training.schedule == "cosine"
    assert load_preset("demo", ["data.center=true"]).data.center is True
    assert load_preset("dnerf", ["rays.contraction=inf"]).rays.contraction == "inf", (
        "a word, though TOML has it a number"
    )
    assert load_preset("demo", ["training.steps = 7", "training.steps=8"]).training.steps == 8, "the last one wins"


def test_the_rest_of_a_preset_stays_under_overrides():
    plain, other = load_preset("demo"), load_preset("demo", ["proposals.0.samples=64"])
    assert other.proposals[0] == plain.proposals[0].model_copy(update={"samples": 64})
    assert other.field == plain.field and other.training == plain.training


def test_lists_of_sections_grow_by_one_and_are_replaced_whole():
    plain, longer = load_preset("demo"), load_preset("demo", ["proposals.1.samples=33"])
    assert longer.proposals == (*plain.proposals, ProposalConfig(samples=33))
    assert load_preset("demo", ["proposals=[{samples=7}]"]).proposals == (ProposalConfig(samples=7),)
    assert parse_config({}, ["proposals.0.samples=9"], "here").proposals == (ProposalConfig(samples=9),)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.step=5", "unknown setting 'step' in training (did you mean 'steps'?)"),
        ("trainig.steps=5", "unknown setting 'trainig' in the top level (did you mean 'training'?)"),
        ("proposals.0.sampels=5", "(did you mean 'samples'?)"),
        ("proposals.2.samples=5", "'2' is not a position in proposals"),
        ("proposals.first.samples=5", "'first' is not a position in proposals"),
        ("training.steps.x=5", "unknown setting 'x' in training.steps"),
        ("loss.qqqqqq=5", "(known: interlevel, distortion, mask"),
        ("training.steps", "expected section.key=value"),
        ("=5", "expected section.key=value"),
        ("training..steps=5", "expected section.key=value"),
    ],
)
def test_unknown_overrides_suggest_the_nearest(setting, says):
    assert says in refused([setting])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"training": {"step": 5}}, "here: unknown setting 'training.step' (did you mean 'steps'?)"),
        ({"trainig": {}}, "(did you mean 'training'?)"),
        ({"proposals": [{"log2_statik": 9}]}, "'proposals.0.log2_statik' (did you mean 'log2_static'?)"),
        ({"training": 5}, "here: training = 5"),
    ],
)
def test_unknown_keys_of_a_file_suggest_the_nearest(values, says):
    assert says in refused([], values)


def test_overrides_of_something_that_is_no_section_are_told():
    assert "training is 5, not a section" in refused(["training.steps=5"], {"training": 5})
    assert "not a position in proposals" in refused(["proposals.0.samples=5"], {"proposals": 3})


def test_unknown_presets_suggest_the_nearest():
    with pytest.raises(ConfigError, match=r"'multivew' \(did you mean 'multiview'\?\)"):
        load_preset("multivew")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.steps=0", "training.steps = 0"),
        ("training.steps=1.5", "training.steps = 1.5"),
        ("training.steps=many", "training.steps = 'many'"),
        ("training.learning_rate=-1", "training.learning_rate = -1"),
        ("training.learning_rate=inf", "finite"),
        ("loss.mask=nan", "finite"),
        ("loss.mask=-0.1", "loss.mask"),
        ("data.downscale=17", "data.downscale = 17"),
        ("rays.samples=1", "rays.samples = 1"),
        ("field.log2_static=27", "field.log2_static = 27"),
        ("field.blend=mix", "field.blend = 'mix'"),
        ("field.base_resolution=[4, 4, 4]", "field.base_resolution"),
        ("field.base_resolution=[1, 4, 4, 4]", "field: on each axis, 2 <= base_resolution"),
        ("proposals.0.max_resolution=[8, 8, 8, 8]", "proposals.0: on each axis"),
        ("field.mask_times=0", "field.mask_times = 0"),
        ("field.mask_times=65", "field.mask_times = 65"),
        ("rays.far=0.01", "rays: far (0.01) must exceed"),
        ("rays.near_render=2000", "rays: far (1000.0) must exceed"),
        ("rays.background_render=white", "rays: background_render is for background = 'random'"),
        ("rays.background_render=grey", "rays.background_render = 'grey'"),
        ("mask.objective=guess", "mask.objective = 'guess'"),
        ("mask.interval=0", "mask.interval = 0"),
        ("cameras.colors=gamma", "cameras.colors = 'gamma'"),
        ("cameras.appearance=65", "cameras.appearance = 65"),
        ("cameras.pose_learning_rate=0", "cameras.pose_learning_rate = 0"),
        ("loss.decay=-1", "loss.decay = -1"),
        ("proposals=[]", "proposals"),
        ("proposals=[{}, {}, {}]", "proposals"),
        ("training.threads=-1", "training.threads = -1"),
        ("training.threads=100000", "training.threads = 100000"),
        ("training.seed=99999999999999999999999", "training.seed"),
        ("training.rays_per_step=99999999999999", "training.rays_per_step"),
        ("field.max_resolution=[2048, 2048, 2048, 99999999999999]", "field: on each axis"),
    ],
)
def test_values_out_of_range_are_named(setting, says):
    message = refused([setting])
    assert message.startswith("here: ") and says in message


def test_a_mask_with_too_many_vertices_for_an_index_is_refused():
    message = refused(["field.mask_resolution=512", "field.mask_times=16"])
    assert "field: mask_resolution (512) and mask_times (16) make 2,160,091,152 vertices" in message
    assert parse_config({}, ["field.mask_resolution=512", "field.mask_times=15"], "here").field.mask_times == 15


@pytest.mark.parametrize("trained", ["last_sample", "black", "white", "random"])
def test_what_is_behind_a_render_is_as_trained_unless_that_was_random(trained):
    assert parse_config({}, [f"rays.background={trained}"], "here").rays.behind == trained
    for kind in ("white", "black"):
        settings = [f"rays.background={trained}", f"rays.background_render={kind}"]
        if trained == "random":
            assert parse_config({}, settings, "here").rays.behind == kind
        else:
            assert "others are rendered as they are trained" in refused(settings)


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.steps = 5  # type: ignore[misc]


@pytest.mark.parametrize("content", [None, b"a = ", b"\xff\xfe", b"[training]\nstep = 5\n"])
def test_unreadable_config_files_are_named(content, tmp_path):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)

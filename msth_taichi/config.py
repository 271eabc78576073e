"""Every setting of the program, as frozen models with a meaning, a unit and a range on each field.

A preset is a TOML file in `presets/` that overrides these defaults; a run saves the merged settings as
`config.toml`, which loads again. Unknown keys are errors that name the nearest known one.

Letters: T frames, R grid resolution, L levels.
"""

import difflib
import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msth_taichi.errors import ConfigError

Resolution = tuple[int, int, int, int]
"""Vertices per axis: x, y, z, time."""

FINEST = 2**16
"""Vertices per axis beyond which a float32 position no longer tells neighbours well apart."""

MASK_VERTICES = 2**31 - 2**10
"""Vertices of a mask beyond which a 32-bit index no longer tells them apart."""


class Section(BaseModel):
    """One table of the TOML file: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """From the user's files to the scene: orientation, centring, scaling, what is loaded."""

    orientation: Literal["up", "forward", "none"] = Field(
        default="up",
        description="'up' turns the cameras' mean up axis to +z, 'forward' their mean viewing direction to -z, y up",
    )
    center: bool = Field(default=True, description="move the mean camera position to the origin")
    auto_scale: bool = Field(default=True, description="scale so that the largest camera coordinate is 1")
    scale_factor: float = Field(default=0.5, gt=0, description="further scale after auto_scale")
    box: float = Field(
        default=1.0, gt=0, description="half edge of the scene box, scene units; used when rays.contraction is 'none'"
    )
    num_frames: int | None = Field(default=None, ge=1, description="use only the first frames of each video")
    downscale: int = Field(default=1, ge=1, le=16, description="divide the image size by this (area average)")
    gpu_memory: float = Field(default=16.0, gt=0, description="GB of frames kept on the GPU; larger stores stay in RAM")
    ram_memory: float | None = Field(
        default=None, ge=0, description="GB of frames kept in RAM, larger stores on disk; default: 70 % of what is free"
    )
    cache: str | None = Field(
        default=None, description="folder of frames kept on disk; default: $MSTH_CACHE or ~/.cache/msth_taichi"
    )


class RayConfig(Section):
    """Where a ray is sampled, and what lies behind it."""

    near: float = Field(default=0.05, gt=0, description="nearest sample in training, scene units")
    near_render: float | None = Field(
        default=None, gt=0, description="nearest sample in evaluation and rendering; default: near"
    )
    far: float = Field(default=1000.0, gt=0, description="farthest sample, scene units")
    spacing: Literal["piecewise", "uniform", "lindisp"] = Field(
        default="piecewise", description="first sampler: linear then in disparity, in distance, or in disparity"
    )
    middle: float = Field(
        default=1.0, gt=0, description="distance at which 'piecewise' turns from linear to disparity, scene units"
    )
    contraction: Literal["inf", "l2", "none"] = Field(
        default="inf", description="norm of the contraction of unbounded space; 'none' uses data.box"
    )
    samples: int = Field(default=48, ge=2, le=1024, description="samples per ray given to the field")
    anneal_steps: int = Field(
        default=5000, ge=0, description="steps over which proposal weights sharpen; 0 turns annealing off"
    )
    bounds: Literal["settings", "data"] = Field(
        default="settings", description="'data' takes near, and without contraction far, from the data set or its poses"
    )
    ndc: bool = Field(
        default=False,
        description="normalised device coordinates, for rigs that look one way; with contraction 'none', "
        "data.orientation 'forward', spacing 'uniform'; near is then the near plane",
    )
    background: Literal["last_sample", "black", "white", "random"] = Field(
        default="last_sample", description="colour behind the last sample, and behind transparent pixels"
    )
    background_render: Literal["white", "black"] | None = Field(
        default=None, description="that of evaluation and rendering where training draws it at random; default: grey"
    )

    @model_validator(mode="after")
    def _near_before_far(self) -> "RayConfig":
        if self.far <= max(self.near, self.near_render or 0.0):
            raise ValueError(f"far ({self.far}) must exceed near and near_render")
        return self

    @model_validator(mode="after")
    def _one_background(self) -> "RayConfig":
        if self.background_render and self.background != "random":
            raise ValueError("background_render is for background = 'random'; others are rendered as they are trained")
        return self

    @property
    def behind(self) -> str:
        """Background of evaluation and rendering."""
        return self.background_render or self.background


class GridConfig(Section):
    """A static (3D) and a dynamic (4D) hash encoding, and the mask that blends them."""

    levels: int = Field(default=16, ge=1, le=32, description="levels of both encodings")
    base_resolution: Resolution = Field(default=(16, 16, 16, 15), description="x, y, z, time at the coarsest level")
    max_resolution: Resolution = Field(default=(2048, 2048, 2048, 300), description="x, y, z, time at the finest level")
    log2_static: int = Field(default=19, ge=8, le=26, description="log2 of the entries per level of the static table")
    log2_dynamic: int = Field(default=19, ge=8, le=26, description="log2 of the entries per level of the dynamic table")
    mask_resolution: int = Field(default=128, ge=2, le=512, description="mask cells per axis of space")
    mask_times: int = Field(
        default=1, ge=1, le=64, description="mask vertices along time; 1: the mask is the same at all times"
    )
    mask_init: float = Field(default=-1.0, ge=-10, le=10, description="initial mask logit; -1 is 27 % static")
    blend: Literal["mst", "mt", "add"] = Field(
        default="mst", description="mst: m*h3 + (1-m)*h4;  mt: h3 + (1-m)*h4;  add: h3 + h4"
    )
    hidden: int = Field(default=64, ge=8, le=256, description="width of the MLP after the blend")

    @model_validator(mode="after")
    def _resolutions_grow(self) -> "GridConfig":
        if any(not 2 <= b <= m <= FINEST for b, m in zip(self.base_resolution, self.max_resolution, strict=True)):
            raise ValueError(f"on each axis, 2 <= base_resolution <= max_resolution <= {FINEST} must hold")
        return self

    @model_validator(mode="after")
    def _mask_can_be_indexed(self) -> "GridConfig":
        if (vertices := (self.mask_resolution + 1) ** 3 * self.mask_times) > MASK_VERTICES:
            raise ValueError(
                f"mask_resolution ({self.mask_resolution}) and mask_times ({self.mask_times}) make {vertices:,} "
                f"vertices, more than {MASK_VERTICES:,}; lower one of them"
            )
        return self


class FieldConfig(GridConfig):
    """The main field: density and colour."""

    hidden_color: int = Field(default=64, ge=8, le=256, description="width of the colour MLP's two hidden layers")
    geometry_features: int = Field(
        default=15, ge=1, le=63, description="features handed from the density to the colour MLP"
    )


class ProposalConfig(GridConfig):
    """A small field that only has density: it says where along a ray to look."""

    levels: int = Field(default=5, ge=1, le=32, description="levels of both encodings")
    base_resolution: Resolution = Field(default=(16, 16, 16, 15), description="x, y, z, time at the coarsest level")
    max_resolution: Resolution = Field(default=(128, 128, 128, 150), description="x, y, z, time at the finest level")
    log2_static: int = Field(default=18, ge=8, le=26, description="log2 of the entries per level of the static table")
    log2_dynamic: int = Field(default=18, ge=8, le=26, description="log2 of the entries per level of the dynamic table")
    mask_resolution: int = Field(default=64, ge=2, le=512, description="mask cells per axis of space")
    hidden: int = Field(default=16, ge=8, le=64, description="width of the MLP after the blend")
    samples: int = Field(default=128, ge=2, le=1024, description="samples per ray of this proposal")


class MaskConfig(Section):
    """What tells the mask what moves, beside the pull to static of `loss.mask`."""

    objective: Literal["sparsity", "uncertainty"] = Field(
        default="sparsity", description="'uncertainty': also how badly each place is explained without time"
    )
    uncertainty_weight: float = Field(default=1e-3, ge=0, description="likelihood of pixels given the static render")
    information_weight: float = Field(
        default=3e-4, ge=0, description="information between mask and uncertainty; 0.01 suits 'histogram' and 'neural'"
    )
    information: Literal["correlation", "histogram", "neural"] = Field(
        default="correlation", description="how that information is estimated"
    )
    interval: int = Field(
        default=16, ge=1, description="rays from one to the next that is rendered without time for it as well"
    )


class CamerasConfig(Section):
    """What is learnt of each camera beside the scene."""

    colors: Literal["none", "affine"] = Field(
        default="none", description="'affine': a gain and a bias per colour channel of each training camera"
    )
    color_prior: float = Field(default=0.05, ge=0, description="pull of gains to 1 and biases to 0")
    color_learning_rate: float = Field(default=2e-3, gt=0, description="rate of gains and biases at step 0")
    appearance: int = Field(
        default=0,
        ge=0,
        le=64,
        description="numbers per training camera that the colour MLP is given; renders get the mean",
    )
    poses: Literal["none", "refine"] = Field(
        default="none", description="'refine': a small rotation and shift of each training camera"
    )
    pose_learning_rate: float = Field(default=3e-4, gt=0, description="rate of radians and scene units at step 0")


class LossConfig(Section):
    """Weights of the terms added to the mean squared colour error."""

    interlevel: float = Field(default=1.0, ge=0, description="proposal weights must enclose the field's weights")
    distortion: float = Field(default=0.002, ge=0, description="weights of a ray lie close together (mip-NeRF 360)")
    mask: float = Field(default=0.1, ge=0, description="mean of 1 - m over the mask grid: pulls to static")
    mask_proposal: bool = Field(default=False, description="apply the mask loss to the proposals' masks as well")
    sparse: float = Field(default=0.0, ge=0, description="mean log(1 + 2 density^2) over samples: fewer floaters")
    opacity: float = Field(default=0.0, ge=0, description="entropy of a ray's opacity: rays hit something or nothing")
    depth: float = Field(
        default=0.0, ge=0, description="squared distance of a ray's light to the surface that a depth map says it meets"
    )
    time_smoothness: float = Field(
        default=0.0, ge=0, description="second difference of features over time, at samples of the rays"
    )
    total_variation: float = Field(
        default=0.0, ge=0, description="difference of features between neighbouring places, at samples of the rays"
    )
    decay: float = Field(default=0.0, ge=0, description="share of table entries lost per step, in learning rates")
    full_distance: float = Field(
        default=0.0,
        ge=0,
        description="samples nearer to their camera have smaller gradients, by the square of the distance, in scene "
        "units: fewer floaters before cameras",
    )


class SamplerConfig(Section):
    """Which pixels a training step looks at."""

    kind: Literal["uniform", "static_dynamic", "importance", "error_map"] = Field(
        default="uniform", description="static_dynamic and importance need cameras that do not move"
    )
    ratio: float = Field(default=50.0, gt=0, description="static : dynamic pixels at the start")
    ratio_end: float = Field(default=30.0, gt=0, description="static : dynamic pixels after ratio_steps")
    ratio_steps: int = Field(default=20000, ge=1, description="steps over which the ratio changes, linearly")
    repeat_steps: int = Field(
        default=20000,
        ge=0,
        description="a dynamic pixel is repeated at 1 + 5 sin(...) times, which peaks at this step; 0 for one time",
    )
    variance: float = Field(
        default=0.03, gt=0, le=1, description="temporal variance of a pixel's colour above which it is dynamic"
    )
    weight: Literal["isg", "ist", "isg_ist"] = Field(
        default="isg",
        description="importance: 'isg' difference to the median over time, 'ist' difference to nearby times, "
        "'isg_ist' first the one, then the other",
    )
    ist_step: int = Field(default=10000, ge=0, description="step from which 'isg_ist' uses ist")
    gamma: float = Field(
        default=0.02, gt=0, le=1, description="isg: difference to the median at which the weight is one half"
    )
    floor: float = Field(default=0.1, ge=0, le=1, description="ist: least weight of a pixel")
    shift: int = Field(default=25, ge=1, le=100, description="ist: frames to either side that a pixel is compared with")
    median_frames: int = Field(
        default=31, ge=1, le=301, description="isg: evenly spaced frames of a camera that the median is of, at most"
    )
    uniform: float = Field(
        default=0.25, ge=0, le=1, description="importance, error_map: share of the rays that are drawn evenly"
    )
    map_memory: float = Field(
        default=256.0, gt=0, description="importance, error_map: MB of maps at most; decides how fine they are"
    )
    map_resolution: int = Field(default=32, ge=1, description="error_map: cells along the longest side of an image")
    time_bins: int = Field(default=30, ge=1, description="error_map: cells along time")
    map_decay: float = Field(
        default=0.5, ge=0, lt=1, description="error_map: share of the old error kept each time the map is renewed"
    )


class TrainingConfig(Section):
    """The optimisation."""

    steps: int = Field(default=20000, ge=1, le=10**9, description="training steps")
    rays_per_step: int = Field(default=16384, ge=1, le=2**22, description="rays per step")
    learning_rate: float = Field(default=1e-2, gt=0, description="Adam's rate at step 0")
    learning_rate_end: float = Field(default=2e-4, gt=0, description="rate after schedule_steps")
    schedule: Literal["exponential", "cosine"] = Field(
        default="exponential", description="shape of the rate between the two"
    )
    schedule_steps: int | None = Field(default=None, ge=1, description="length of the schedule; default: steps")
    precision: Literal["auto", "float32", "float16"] = Field(
        default="auto", description="auto: float16 compute on CUDA, float32 on CPU"
    )
    seed: int = Field(default=42, ge=0, lt=2**63, description="seed of parameters, pixels and jitter")
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads; 0 for all")
    deterministic: bool = Field(
        default=True,
        description="sum the tables' gradients so that two runs are equal bit for bit; on a GPU that is faster too. "
        "false sums in float32, which keeps gradients a billionth of their level's total",
    )
    log_every: int = Field(default=50, ge=1, description="steps between lines of metrics.jsonl")
    eval_every: int = Field(default=0, ge=0, description="steps between evaluations on held-out views; 0 for none")
    checkpoint_every: int = Field(default=2000, ge=1, description="steps between checkpoints")


class EvaluationConfig(Section):
    """How held-out views are compared."""

    split: Literal["test", "val", "train"] = Field(default="test", description="views to compare")
    every: int = Field(
        default=10, ge=1, description="every n-th frame of each held-out camera; moving cameras: every n-th image"
    )
    chunk: int = Field(default=32768, ge=1, le=2**22, description="rays rendered at once")


class Config(Section):
    """All settings of one run."""

    data: DataConfig = Field(default_factory=DataConfig)
    rays: RayConfig = Field(default_factory=RayConfig)
    field: FieldConfig = Field(default_factory=FieldConfig)
    proposals: tuple[ProposalConfig, ...] = Field(
        default_factory=lambda: (ProposalConfig(),), min_length=1, max_length=2
    )
    loss: LossConfig = Field(default_factory=LossConfig)
    mask: MaskConfig = Field(default_factory=MaskConfig)
    cameras: CamerasConfig = Field(default_factory=CamerasConfig)
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="after")
    def _ndc_fits(self) -> "Config":
        rays = self.rays
        if rays.ndc and (rays.contraction, rays.spacing, self.data.orientation) != ("none", "uniform", "forward"):
            raise ValueError(
                "rays.ndc needs rays.contraction='none', rays.spacing='uniform' and data.orientation='forward'"
            )
        return self


def preset_names() -> list[str]:
    """Names of the presets that ship with the package, in alphabetical order."""
    folder = resources.files("msth_taichi") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def preset_description(name: str) -> str:
    """The first comment line of a preset: what it is for."""
    text = (resources.files("msth_taichi") / "presets" / f"{name}.toml").read_text()
    return text.partition("\n")[0].lstrip("# ")


def load_preset(name: str, settings: list[str] | None = None) -> Config:
    """The preset's settings, with `section.key=value` overrides applied.

    Args:
        name: a name from `preset_names()`.
        settings: overrides such as `["training.steps=500", "proposals.0.samples=64"]`; values are TOML.
    Raises:
        ConfigError: an unknown preset or setting, a value that does not parse or is out of range.

    Example:
        >>> load_preset("demo", ["training.steps=10"]).training.steps
        10
    """
    if name not in preset_names():
        raise ConfigError(f"unknown preset '{name}'{nearest(name, preset_names())}; `msth presets` lists them")
    text = (resources.files("msth_taichi") / "presets" / f"{name}.toml").read_text()
    return parse_config(tomllib.loads(text), settings or [], f"preset '{name}'")


def load_config(path: Path, settings: list[str] | None = None) -> Config:
    """Settings saved in a run folder's `config.toml`."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable config file ({error}); restore it or train again") from error
    values.pop("version", None)
    return parse_config(values, settings or [], str(path))


def parse_config(values: dict[str, Any], settings: list[str], origin: str) -> Config:
    """Validate nested values plus overrides; `origin` names the source in errors."""
    for setting in settings:
        _apply(values, setting)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None


def dump_config(config: Config, version: str) -> str:
    """TOML text that `load_config` reads back to an equal Config."""
    import tomli_w

    return tomli_w.dumps({"version": version, **config.model_dump(mode="json", exclude_none=True)})


def _apply(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {setting}: expected section.key=value, such as training.steps=500")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    if isinstance(value, float) and not math.isfinite(value):
        value = text.strip()  # no number here is infinite, but rays.contraction may be "inf"
    node: Any = values
    model: Any = Config
    for depth, part in enumerate(path):
        where = ".".join(path[:depth]) or "the top level"
        part_key: Any
        if isinstance(model, tuple):  # a list of sections, addressed by number
            if not isinstance(node, list) or not part.isdigit() or int(part) > len(node):
                raise ConfigError(f"--set {key}: '{part}' is not a position in {where}; use 0 or 1")
            if int(part) == len(node):
                node.append({})
            part_key, model = int(part), model[0]
        else:
            fields = getattr(model, "model_fields", {})
            if part not in fields:
                raise ConfigError(f"--set {key}: unknown setting '{part}' in {where}{nearest(part, list(fields))}")
            if not isinstance(node, dict):
                raise ConfigError(f"--set {key}: {where} is {node!r}, not a section; set its keys one by one")
            part_key = part
            model = (ProposalConfig,) if part == "proposals" else fields[part].annotation
        if depth == len(path) - 1:
            node[part_key] = value
        elif isinstance(node, list):
            node = node[part_key]
        else:
            node = node.setdefault(part_key, [{}] if isinstance(model, tuple) else {})


def nearest(word: str, known: list[str]) -> str:
    """What to add to an error about an unknown word: the known one that it resembles, or all."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else f" (known: {', '.join(known)})" if known else ""


def _explain(error: ValidationError, origin: str) -> str:
    """The first problem of a pydantic error, in one line."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path) or "settings"
    if problem["type"] == "extra_forbidden":
        model: Any = Config
        for part in path[:-1]:
            fields = getattr(model, "model_fields", {})
            model = ProposalConfig if part.isdigit() else fields[part].annotation if part in fields else model
        return f"{origin}: unknown setting '{name}'{nearest(path[-1], list(getattr(model, 'model_fields', {})))}"
    message = problem["msg"].removeprefix("Value error, ")
    # a rule between several settings of a section: its whole input would not fit into a line
    value = "" if problem["type"] == "value_error" else f" = {problem['input']!r}"
    return f"{origin}: {name}{value}: {message}"

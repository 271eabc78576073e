"""A model in one file: what a render needs of a run, in safetensors, without pickle.

Tensors are the model's parameters by their names. A table NAME in eight bits is three tensors: NAME/codes, deflated;
NAME/scales (L, F) and NAME/rows (L,), see `quantize`. Settings, scene, step and what the file is worth are json texts
in the header.

Letters: L levels, F features per entry.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from msth_taichi.config import Config, parse_config
from msth_taichi.errors import MsthError, RunError
from msth_taichi.exporting.quantize import dequantize, pack, quantize, unpack
from msth_taichi.files import replacing, unwritable
from msth_taichi.grids import GridSpec
from msth_taichi.model.encoding import MaskedEncoding
from msth_taichi.model.renderer import RadianceField
from msth_taichi.scene.scene import Scene, describe, scene_from_description

Bits = Literal[16, 8]

SUFFIX = ".safetensors"
_FORMAT = "msth_taichi model 1"
_OF_TRAINING = "uncertainty."
"""Parameters that no render reads."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a file holds.

    Args:
        config: settings of the run.
        scene: without frames.
        step: training steps done.
        parameters: float32 by name, all that rendering reads.
    """

    config: Config
    scene: Scene
    step: int
    parameters: dict[str, torch.Tensor]


def encode(model: RadianceField, bits: Bits) -> dict[str, torch.Tensor]:
    """A model's parameters as they are stored: tables and masks in `bits` bits, the rest in float32.

    Tables in 16 bits are float16, which is what a GPU reads anyway.
    """
    specs = _specs(model)
    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().cpu()
        if name.startswith(_OF_TRAINING):
            continue
        if name not in specs:
            tensors[name] = values.clone()
        elif bits == 16:
            tensors[name] = values.half()
        else:
            codes, scales = quantize(values, specs[name].entries)
            tensors[f"{name}/codes"] = pack(codes)
            tensors[f"{name}/scales"] = scales
            tensors[f"{name}/rows"] = torch.tensor(specs[name].entries)
    return tensors


def decode(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters in float32 from what `encode` made of them.

    Raises:
        ValueError: parts of a table are missing or do not fit together.
    """
    parameters = {}
    for name, values in tensors.items():
        table, _, part = name.partition("/")
        if not part:
            parameters[name] = values.float()
        elif part == "codes":
            try:
                scales, rows = tensors[f"{table}/scales"], tensors[f"{table}/rows"].tolist()
            except KeyError as error:
                raise ValueError(f"{error} is missing") from error
            parameters[table] = dequantize(unpack(values, sum(rows), scales.shape[1]), scales, rows)
    return parameters


def write_model_file(
    path: Path,
    config: Config,
    scene: Scene,
    step: int,
    bits: Bits,
    tensors: dict[str, torch.Tensor],
    quality: dict[str, Any],
) -> None:
    """Write tensors from `encode` with what is needed to use them.

    Args:
        path: an existing file is replaced.
        config: settings of the run.
        scene: its frames are left out.
        step: training steps done.
        bits: that tables were encoded in.
        tensors: from `encode`.
        quality: what `export_compact` measured; for who looks into the header.
    Raises:
        RunError: the system refuses a write.
    """
    facts = {
        "config": config.model_dump(mode="json", exclude_none=True),
        "scene": describe(scene),
        "step": step,
        "bits": bits,
        "quality": quality,
    }
    texts = {"format": _FORMAT, **{name: json.dumps(value) for name, value in facts.items()}}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, texts)
        except SafetensorError as error:  # not an OSError, whatever the system said
            raise unwritable(path, error) from error


def read_model_file(path: Path) -> ModelFile:
    """Read a file that `write_model_file` wrote.

    Raises:
        RunError: it is none, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
            if texts.pop("format", None) != _FORMAT:
                raise RunError(
                    f"{path}: not a model file; give a run folder, or a file that msth export --to compact wrote"
                )
            facts = {name: json.loads(text) for name, text in texts.items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the reader is no mapping
        return ModelFile(
            parse_config(facts["config"], [], str(path)),
            scene_from_description(facts["scene"]),
            int(facts["step"]),
            decode(tensors),
        )
    except RunError:
        raise
    except SafetensorError as error:
        raise RunError(f"{path}: not a model file, or a damaged one ({error}); export it again") from error
    except (MsthError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RunError(f"{path}: damaged ({type(error).__name__}: {error}); export it again") from error


def _specs(model: RadianceField) -> dict[str, GridSpec]:
    """The grid of each parameter that is one."""
    specs = {}
    for name, module in model.named_modules():
        if isinstance(module, MaskedEncoding):
            specs[f"{name}.static_table"] = module.static_spec
            specs[f"{name}.dynamic_table"] = module.dynamic_spec
            specs[f"{name}.mask_logits"] = module.mask_spec
    return specs

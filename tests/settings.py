"""Settings for tests, as variations of a config."""

import json

from msth_taichi.config import Config, parse_config


def changed(config: Config, *settings: str) -> Config:
    """`config` with overrides such as "rays.samples=4"."""
    return parse_config(config.model_dump(mode="json", exclude_none=True), list(settings), "test")


def overrides(config: Config) -> list[str]:
    """All settings of a config with one proposal, as `--set` takes them beside any preset."""
    values = config.model_dump(mode="json", exclude_none=True)
    (values["proposals.0"],) = values.pop("proposals")
    return [f"{part}.{key}={json.dumps(value)}" for part, section in values.items() for key, value in section.items()]

"""Settings for tests, as variations of a config."""

from msth_taichi.config import Config, parse_config


def changed(config: Config, *settings: str) -> Config:
    """`config` with overrides such as "rays.samples=4"."""
    return parse_config(config.model_dump(mode="json", exclude_none=True), list(settings), "test")

"""Radiance fields of moving scenes, with masked space-time hash encoding."""

__version__ = "0.1.0"

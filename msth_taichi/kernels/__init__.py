"""Taichi kernels, one file per operator. Only `msth_taichi.ops` calls them."""

import os

# what a command prints is its result: Taichi's banner is not part of it
os.environ.setdefault("ENABLE_TAICHI_HEADER_PRINT", "0")

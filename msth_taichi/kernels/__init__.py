"""Taichi kernels, one file per operator. Only `msth_taichi.ops` calls them."""

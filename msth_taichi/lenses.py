"""Lens codes shared by kernels, references and scenes."""

PINHOLE = 0
OPENCV = 1  # radial-tangential
FISHEYE = 2  # OpenCV's equidistant model

LENS_NAMES = ("pinhole", "opencv", "fisheye")

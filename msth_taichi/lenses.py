"""Lens codes and distortion coefficients shared by kernels, references and scenes."""

PINHOLE = 0
OPENCV = 1  # radial, rational, tangential
FISHEYE = 2  # OpenCV's equidistant model
EQUIRECTANGULAR = 3  # longitude and latitude
ORTHOGRAPHIC = 4

LENS_NAMES = ("pinhole", "opencv", "fisheye", "equirectangular", "orthographic")

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
"""Order of the coefficients of a lens; a fisheye has the first four."""

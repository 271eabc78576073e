"""Lens codes and distortion coefficients shared by kernels, references and scenes."""

PINHOLE = 0
OPENCV = 1  # radial, rational, tangential
FISHEYE = 2  # OpenCV's equidistant model
EQUIRECTANGULAR = 3  # longitude and latitude
ORTHOGRAPHIC = 4
STEREO_360 = 5  # a panorama for each eye, the left above the right

LENS_NAMES = ("pinhole", "opencv", "fisheye", "equirectangular", "orthographic", "stereo-360")

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
"""Order of the coefficients of a lens; a fisheye has the first four. The first of a stereo panorama is half the
distance of its eyes, scene units."""

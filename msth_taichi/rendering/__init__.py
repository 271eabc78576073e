"""Camera paths, and the images and videos rendered along them."""

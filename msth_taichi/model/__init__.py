"""The radiance field: encodings, small MLPs, proposals, losses and the renderer that joins them."""

"""The operators of `msth_taichi.ops` in plain PyTorch: slow, readable, differentiated by autograd.

Nothing here imports Taichi. Tests hold every kernel to its twin here; users can read what an operator means.
"""

"""Do the cameras show one thing in one colour? Gains of each channel, from places that several cameras see.

The depth of a pixel is not known, so all of a range are tried and the one kept where the other cameras agree best on
the colour, up to the gains found so far. Where a scene is plain many depths agree, and any of them serves.

Letters: C cameras, N pixels of a camera, D depths, K partners, H image height, W image width.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msth_taichi.checking.findings import Finding
from msth_taichi.checking.geometry import central, grid_directions, project
from msth_taichi.checking.motion import neighbours
from msth_taichi.checking.samples import View
from msth_taichi.scene.cameras import Cameras

LIMIT = 0.05
"""Difference of a channel, or between channels, that is worth a warning: one part in twenty."""

_PIXELS, _DEPTHS, _PARTNERS, _ROUNDS = 250, 24, 10, 8
_WIDTH = 160
_DARK, _BRIGHT = 16, 240  # of 255: darker is noise, brighter is clipped
_LEAST = 30  # places seen in common that a pair of cameras needs
_NEAREST, _FARTHEST = 0.25, 40.0  # times the extent of the cameras


@dataclass(frozen=True, eq=False)
class Gains:
    """Colours of cameras against those of the others, as logarithms of stored values.

    Args:
        gain: (C, 3) red, green, blue; NaN where too little is seen in common.
        spread: (C,) how far a camera's partners disagree about it.
    """

    gain: np.ndarray
    spread: np.ndarray


def color_gains(views: Sequence[View], cameras: Cameras) -> Gains | None:
    """Gains of the cameras looked at, their median taken as 1; None for fewer than three."""
    usable = [k for k, view in enumerate(views) if len(view.stills) and central(cameras, view.camera)]
    if len(usable) < 3:
        return None
    pictures = {k: _logarithms(views[k].stills) for k in usable}
    poses = cameras.camera_to_world.double().numpy()[[view.camera for view in views]]
    position = poses[usable, :, 3]
    pairs = [(usable[a], usable[b]) for a, b in neighbours(position, _PARTNERS)]
    extent = max(float(np.linalg.norm(position - position.mean(0), axis=1).max()), 1e-6)
    depths = extent / np.linspace(1 / _NEAREST, 1 / _FARTHEST, _DEPTHS)
    generator = np.random.default_rng(0)
    seen = {}
    for k in usable:
        partners = [b if a == k else a for a, b in pairs if k in (a, b)]
        seen[k] = (partners, _observed(k, partners, views, cameras, pictures, poses[k], depths, generator))
    gain = np.zeros((len(views), 3))
    pairwise: np.ndarray = np.full((len(views), len(views), 3), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # medians of nothing are NaN, which is meant
        for _ in range(_ROUNDS):
            pairwise = _differences(seen, gain)
            update = np.nanmedian(pairwise, axis=0)
            gain += 0.8 * np.where(np.isfinite(update), update, 0)
            gain -= np.median(gain[usable], axis=0)
        rest = np.abs(pairwise - np.nanmedian(pairwise, axis=0)).max(2)
        spread = 1.48 * np.nanmedian(rest, axis=0)
    partners_told = np.isfinite(pairwise[..., 0]).sum(0)
    gain[partners_told < 2] = np.nan
    return Gains(gain, spread)


def _logarithms(stills: np.ndarray) -> np.ndarray:
    """(H, W, 3) of what stands still, averaged over blocks; NaN where it is too dark or too bright."""
    still = np.median(stills, axis=0)
    factor = max(still.shape[1] // _WIDTH, 1)
    height, width = still.shape[0] // factor, still.shape[1] // factor
    blocks = still[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    mean = blocks.mean((1, 3))
    usable = (blocks.min((1, 3)).min(-1) >= _DARK) & (blocks.max((1, 3)).max(-1) <= _BRIGHT)
    return np.where(usable[..., None], np.log(np.maximum(mean, 1)), np.nan)


def _observed(
    k: int,
    partners: Sequence[int],
    views: Sequence[View],
    cameras: Cameras,
    pictures: Mapping[int, np.ndarray],
    pose: np.ndarray,
    depths: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """(N, D, K, 3) colour that each partner sees at each depth, less the pixel's own."""
    mine = pictures[k]
    height, width = mine.shape[:2]
    usable = np.flatnonzero(np.isfinite(mine[..., 0]).ravel())
    if not len(usable) or not partners:
        return np.zeros((0, len(depths), len(partners), 3))
    chosen = generator.choice(usable, min(_PIXELS, len(usable)), replace=False)
    rays = grid_directions(cameras, views[k].camera, width, height)[chosen] @ pose[:, :3].T
    points = pose[:, 3] + rays[:, None] * depths[None, :, None]
    own = mine.reshape(-1, 3)[chosen][:, None]
    result = []
    for partner in partners:
        picture = pictures[partner]
        place = project(cameras, views[partner].camera, points.reshape(-1, 3))
        inside = np.isfinite(place[:, 0])
        cell = (np.where(inside[:, None], place, 0) * picture.shape[1::-1]).astype(int)
        color = np.where(inside[:, None], picture[cell[:, 1], cell[:, 0]], np.nan)
        result.append(color.reshape(len(chosen), len(depths), 3) - own)
    return np.stack(result, axis=2)


def _differences(seen: Mapping[int, tuple[Sequence[int], np.ndarray]], gain: np.ndarray) -> np.ndarray:
    """(C, C, 3) what camera [0] sees of camera [1]: its colour, less what the gains explain."""
    pairwise = np.full((len(gain), len(gain), 3), np.nan)
    for k, (partners, observed) in seen.items():
        if not observed.size:
            continue
        rest = observed - (gain[partners] - gain[k])
        wrong = np.abs(rest).mean(3)
        cost = np.where(np.isfinite(wrong).sum(2) >= 2, np.nanmedian(wrong, axis=2), np.inf)
        best = cost.argmin(1)
        rows = np.arange(len(best))
        cost = cost[rows, best]
        agreed = np.isfinite(cost)
        if agreed.any():
            agreed &= cost <= np.median(cost[agreed])
        found = rest[rows, best][agreed]
        enough = np.isfinite(found[..., 0]).sum(0) >= _LEAST
        pairwise[k, np.array(partners)[enough]] = np.nanmedian(found[:, enough], axis=0)
    return pairwise


def color_findings(names: Sequence[str], gains: Gains | None) -> list[Finding]:
    """Cameras that stand out in exposure or white balance."""
    known = np.zeros(len(names), bool) if gains is None else np.isfinite(gains.gain[:, 0])
    if gains is None or known.sum() < 3:
        return [Finding("colours", "ok", "not checked", "too little is seen by three cameras at one time")]
    findings = []
    level = gains.gain.mean(1)
    level = level - np.median(level[known])
    balance = gains.gain - gains.gain.mean(1, keepdims=True)
    balance = balance - np.median(balance[known], axis=0)
    range_ = balance.max(1) - balance.min(1)
    sure = 2 * np.nan_to_num(gains.spread, nan=np.inf)
    seen = np.flatnonzero(known).tolist()
    brighter = [i for i in seen if abs(np.expm1(level[i])) > LIMIT and abs(level[i]) > sure[i]]
    tinted = [i for i in seen if np.expm1(range_[i]) > LIMIT and range_[i] > sure[i]]
    if brighter:
        details = ", ".join(f"{names[i]} {np.expm1(level[i]):+.0%}" for i in brighter)
        findings.append(
            Finding(
                "colours",
                "warning",
                f"{len(brighter)} of {len(names)} cameras differ in exposure",
                f"brightness of what they share with others, against the median camera: {details}",
                "match the exposures when converting, or leave out the worst; held-out views of these cameras will "
                "score lower than they look. Surfaces that shine towards a camera count as well",
                tuple(names[i] for i in brighter),
            )
        )
    if tinted:
        details = ", ".join(
            f"{names[i]} (" + ", ".join(f"{c} {np.expm1(v):+.0%}" for c, v in zip("RGB", balance[i], strict=True)) + ")"
            for i in tinted
        )
        findings.append(
            Finding(
                "colours",
                "warning",
                f"{len(tinted)} of {len(names)} cameras differ in white balance",
                f"channels against the median camera, brightness taken out: {details}",
                "apply one white balance to all cameras before encoding; held-out views of these cameras will score "
                "lower than they look",
                tuple(names[i] for i in tinted),
            )
        )
    if not findings:
        most = max(float(np.abs(np.expm1(level[known])).max()), float(np.expm1(range_[known]).max()))
        measured = f"exposure and white balance of {int(known.sum())} cameras differ by at most {most:.1%}"
        findings.append(Finding("colours", "ok", "cameras agree in colour", measured))
    return findings

"""Are all cameras in step? Motion of each against that of the others, over lags.

Letters: C cameras, T frames, A lags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msth_taichi.checking.findings import Finding, listing
from msth_taichi.checking.motion import lag_curve, without_trend

SHIFTED = 2
"""Frames from which on a camera counts as shifted: a frame more or less may be the shutter."""

_PEAK, _MARGIN = 0.25, 0.1  # of motion along epipolar lines
_ENERGY_PEAK, _ENERGY_MARGIN = 0.5, 0.2  # of motion in all the image, which says less


@dataclass(frozen=True)
class Lag:
    """How many frames a camera is behind the others.

    Args:
        frames: positive where it shows late what the others show; None where the motion does not tell.
        peak: correlation at this lag.
        margin: by how much it exceeds that of lags further than two frames away.
    """

    frames: int | None
    peak: float
    margin: float


Curves = Mapping[tuple[int, int], np.ndarray]


def solve_lags(curves: Curves, energies: Sequence[np.ndarray], over: range) -> list[Lag]:
    """The lag of each camera, from pairs of cameras where they tell, else from the motion in all the image.

    Args:
        curves: (A,) correlation over the lags of camera i behind camera j, for pairs (i, j).
        energies: (T,) of each of the C cameras.
        over: the lags.
    """
    offset = _offsets(curves, len(energies), over)
    return [_of_pairs(i, curves, offset, over) or _of_energy(i, energies, offset, over) for i in range(len(energies))]


def _offsets(curves: Curves, count: int, over: range) -> np.ndarray:
    """Offsets under which the pairs agree best: ever the one change that gains most. Most cameras have 0."""
    most = over[-1]
    offset = np.zeros(count, int)
    for _ in range(2 * count):
        best = (1e-3, 0, 0)
        for i in range(count):
            total = _against_neighbours(i, curves, offset, over).sum(0)
            gain = total - total[offset[i] + most]
            best = max(best, (float(gain.max()), i, over[int(gain.argmax())]))
        if best[0] <= 1e-3:
            break
        offset[best[1]] = best[2]
    return np.clip(offset - np.sort(offset)[(count - 1) // 2], -most, most)


def _against_neighbours(i: int, curves: Curves, offset: np.ndarray, over: range) -> np.ndarray:
    """(neighbours, A) correlation at each offset that camera i might have, the others staying."""
    most = over[-1]
    rows = [np.zeros(len(over))]
    for (a, b), curve in curves.items():
        if i not in (a, b):
            continue
        other = b if a == i else a
        row = curve if a == i else curve[::-1]
        places = np.array(over) - offset[other] + most
        rows.append(np.where((places >= 0) & (places < len(over)), row[np.clip(places, 0, len(over) - 1)], 0.0))
    return np.stack(rows[1:] or rows)


def _of_pairs(i: int, curves: Curves, offset: np.ndarray, over: range) -> Lag | None:
    rows = _against_neighbours(i, curves, offset, over)
    return _confident(np.median(rows, axis=0), over, _PEAK, _MARGIN)


def _of_energy(i: int, energies: Sequence[np.ndarray], offset: np.ndarray, over: range) -> Lag:
    length = min(map(len, energies))
    others = [
        _standard(np.roll(energy[:length], -offset[k]))
        for k, energy in enumerate(energies)
        if k != i and energy.std() > 0
    ]
    unknown = Lag(None, 0.0, 0.0)
    if length < 3 * over[-1] or not others or energies[i].std() == 0:
        return unknown
    curve = lag_curve(energies[i][:length], np.median(others, axis=0), over)
    return _confident(curve, over, _ENERGY_PEAK, _ENERGY_MARGIN) or unknown


def _confident(curve: np.ndarray, over: range, peak: float, margin: float) -> Lag | None:
    best = int(curve.argmax())
    far = curve[np.abs(np.arange(len(curve)) - best) > 2]
    above = float(curve[best] - far.max()) if len(far) else 0.0
    if curve[best] < peak or above < margin:
        return None
    return Lag(over[best], float(curve[best]), above)


def _standard(signal: np.ndarray) -> np.ndarray:
    fast = without_trend(signal)
    return fast / max(float(fast.std()), 1e-9)


def timing_findings(lags: Mapping[str, Lag], over: range, fps: float) -> list[Finding]:
    """What to say about the lags of named cameras."""
    known = {name: lag for name, lag in lags.items() if lag.frames is not None}
    if not known:
        measured = "too little moves, or too few frames, to compare the cameras' motion"
        return [Finding("synchronisation", "ok", "not checked", measured)]
    findings = []
    first = min(0, *(lag.frames or 0 for lag in known.values()))
    for name, lag in known.items():
        shift = lag.frames or 0
        if abs(shift) < SHIFTED:
            continue
        way = "late" if shift > 0 else "early"
        remedy = (
            f'write "start_frame": {shift - first} into the json entry of {name}'
            if shift > first
            else f'write "start_frame": {-first} into the json entries of all other cameras'
        )
        if shift > first:
            remedy += f", or give scripts/convert_video.py --start {name}={shift - first}"
        findings.append(
            Finding(
                "synchronisation",
                "error",
                f"{name} is {abs(shift)} frames {way}",
                f"its motion fits the other cameras' best at a lag of {shift:+d} frames ({shift / fps:+.3f} s): "
                f"correlation {lag.peak:.2f}, {lag.margin:.2f} above other lags",
                f"{remedy}; lower num_frames to what all cameras then have",
                (name,),
            )
        )
    unknown = [name for name in lags if name not in known]
    if unknown:
        measured = f"the motion in {listing(unknown)} does not tell their time"
        findings.append(Finding("synchronisation", "ok", f"{len(unknown)} cameras not checked", measured))
    if not any(finding.level == "error" for finding in findings):
        least = min(lag.margin for lag in known.values())
        measured = (
            f"motion of {len(known)} cameras fits the others' at lags of less than {SHIFTED} frames, "
            f"by at least {least:.2f} better than at others up to {over[-1]}"
        )
        findings.insert(0, Finding("synchronisation", "ok", "cameras are in step", measured))
    return findings

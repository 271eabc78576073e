"""Do the poses make sense? Where the cameras look, and whether their pictures agree with it.

Letters: C cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msth_taichi.checking.epipolar import CornerEvidence, Evidence
from msth_taichi.checking.findings import Finding, listing
from msth_taichi.checking.motion import UNCHANGED, Signs
from msth_taichi.scene.normalize import SceneTransform

PARALLEL = 2e-3
"""Least eigenvalue of the mean projection across the optical axes below which these are parallel."""

REMOTE = 10.0
"""Times the median distance from the cameras' middle beyond which a camera is elsewhere."""

# share of the median camera's fit that a camera needs, and the least fit of any
_FIT = {"motion": (0.6, 0.3), "corners": (0.3, 0.12)}
_INEXACT = 0.35  # of the median camera's share of corners: a rotation off by two degrees falls below
_TELLING = 0.2  # median share of corners from which that means something
_GAIN = 0.15  # by which another orientation has to fit better before it is proposed
_COMMON_GAIN = 0.08  # of all cameras at once, and so many of them: chance does not do that
_COMMON_SHARE = 0.75
_ASKED = 6  # cameras that are tried out for it

_FLIPS: dict[Signs, str] = {
    (1, -1, -1): "with its y and z axes negated it fits: its matrix follows OpenCV's axes (y down, z forward); negate "
    "columns 2 and 3 of its rotation",
    (-1, 1, -1): "with its x and z axes negated it fits: negate columns 1 and 3 of its rotation",
    (-1, -1, 1): "with its x and y axes negated it fits: the picture is upside down; negate columns 1 and 2 of its "
    "rotation, or turn the video by 180 degrees",
    (-1, 1, 1): "with its x axis negated it fits: its picture is mirrored left to right; mirror the video back, or "
    "correct the handedness of the poses",
    (1, -1, 1): "with its y axis negated it fits: its picture is mirrored top to bottom; mirror the video back, or "
    "correct the handedness of the poses",
    (1, 1, -1): "with its z axis negated it fits: it looks the wrong way and is mirrored; correct the handedness of "
    "the poses",
    (-1, -1, -1): "with all its axes negated it fits: correct the handedness of the poses",
}

_PROPER: tuple[Signs, ...] = ((1, -1, -1), (-1, 1, -1), (-1, -1, 1))
"""Of these, a pose stays a rotation."""


@dataclass(frozen=True, eq=False)
class Meeting:
    """The point that comes closest to all optical axes.

    Args:
        point: (3,) scene units; None where the axes are parallel.
        distance: (C,) along each axis, negative behind the camera.
        angle: (C,) between each axis and the direction to the point, radians, [0, pi].
    """

    point: np.ndarray | None
    distance: np.ndarray
    angle: np.ndarray


def meeting_point(poses: np.ndarray) -> Meeting:
    """Least squares over the distances to the axes of poses (C, 3, 4), those far off weighing less."""
    position, look = poses[:, :, 3], -poses[:, :, 2]
    across = np.eye(3) - look[:, :, None] * look[:, None]
    if len(poses) < 2 or np.linalg.eigvalsh(across.mean(0))[0] < PARALLEL:
        return Meeting(None, np.full(len(poses), np.nan), np.full(len(poses), np.nan))
    weight = np.ones(len(poses))
    point = np.zeros(3)
    for _ in range(20):
        system = (weight[:, None, None] * across).sum(0)
        point = np.linalg.solve(system, np.einsum("c,cij,cj->i", weight, across, position))
        off = np.linalg.norm(np.einsum("cij,cj->ci", across, point - position), axis=1)
        weight = 1 / np.maximum(off, 0.05 * max(float(np.median(off)), 1e-9))
    to = point - position
    length = np.maximum(np.linalg.norm(to, axis=1), 1e-12)
    along = (to * look).sum(1)
    return Meeting(point, along, np.arccos(np.clip(along / length, -1, 1)))


def common_flip(names: Sequence[str], poses: np.ndarray, evidence: Sequence[Evidence]) -> tuple[Signs, list[Finding]]:
    """Signs of the axes with which all cameras fit clearly better, and what to say about it."""
    asked = np.unique(np.linspace(0, len(names) - 1, min(_ASKED, len(names))).astype(int)).tolist()
    best, most, share = UNCHANGED, _COMMON_GAIN, 0.0
    for signs in _PROPER:
        gains = np.array([_advantage(evidence, i, signs, signs) for i in asked])
        told = gains[np.isfinite(gains)]
        if len(told) > 1 and np.median(told) > most and (told > 0).mean() >= _COMMON_SHARE:
            best, most, share = signs, float(np.median(told)), float((told > 0).mean())
    if best == UNCHANGED:
        return UNCHANGED, []
    # with all axes of all cameras negated the pictures fit as well: what they look at has to lie in front of them
    if np.nanmedian(meeting_point(poses * [*best, 1]).distance) < 0:
        best = (-best[0], -best[1], -best[2])
    remedy = _FLIPS[best].replace("its ", "their ").replace("it fits", "they fit").replace("it looks", "they look")
    measured = (
        f"with other signs of their axes {share:.0%} of the cameras that were tried agree better with their "
        f"neighbours, by a median of {most:.2f} where 1 is a perfect fit; the checks below take the poses as corrected"
    )
    return best, [Finding("poses", "error", "all poses have flipped axes", measured, remedy)]


def pose_findings(
    names: Sequence[str], poses: np.ndarray, evidence: Sequence[Evidence], transform: SceneTransform, all_cameras: int
) -> list[Finding]:
    """What to say about poses, in scene units, of named cameras."""
    sampled = "" if len(names) == all_cameras else f" (of {all_cameras}, {len(names)} were looked at)"
    meeting = meeting_point(poses)
    fits = _fits(evidence, len(names))
    verdicts = _verdicts(evidence, fits)
    worst = _worst(verdicts, fits)
    if worst is not None:
        # its neighbours may look wrong beside it
        for part in evidence:
            part.ignored = frozenset([worst])
        fits = _fits(evidence, len(names))
        verdicts = _verdicts(evidence, fits)
    bad = np.flatnonzero(verdicts == -1).tolist()
    findings = _remote(names, poses, transform)
    if len(bad) > max(len(names) / 2, 1):
        findings.append(_all_wrong(bad, evidence, fits))
    else:
        findings += [_one_wrong(names, i, evidence, fits) for i in bad]
    findings += _inexact(names, verdicts, evidence, fits)
    findings += _meeting_findings(names, meeting, verdicts, transform)
    if (verdicts == 1).any():
        measured = "; ".join(
            f"{part.kind}: {np.nanmin(fit[verdicts == 1]):.2f} to {np.nanmax(fit[verdicts == 1]):.2f} "
            f"where chance gives {part.chance:.2f} and a perfect fit 1"
            for part, fit in zip(evidence, fits, strict=True)
            if np.isfinite(fit[verdicts == 1]).any()
        )
        title = f"pictures of {int((verdicts == 1).sum())} cameras fit their poses{sampled}"
        findings.append(Finding("poses", "ok", title, measured))
    unknown = np.flatnonzero(verdicts == 0).tolist()
    if len(unknown):
        which = (
            "pictures not compared with poses" if len(unknown) == len(names) else f"{len(unknown)} poses not checked"
        )
        measured = f"too little moves, and too few corners match: {listing(names[i] for i in unknown)}"
        findings.append(Finding("poses", "ok", which, measured))
    return findings


def _fits(evidence: Sequence[Evidence], count: int) -> list[np.ndarray]:
    return [np.array([part.fit(i) for i in range(count)]) for part in evidence]


def _worst(verdicts: np.ndarray, fits: Sequence[np.ndarray]) -> int | None:
    """The camera that fits worst of those that fit badly; None where there is none, or too many."""
    bad = np.flatnonzero(verdicts == -1)
    if not 0 < len(bad) <= max(len(verdicts) / 2, 1):
        return None
    return int(min(bad, key=lambda i: np.nanmean([fit[i] for fit in fits])))


def _verdicts(evidence: Sequence[Evidence], fits: Sequence[np.ndarray]) -> np.ndarray:
    """(C,) 1 for a camera that some evidence confirms, -1 where some speaks against it and none confirms, else 0."""
    count = len(fits[0]) if fits else 0
    verdict = np.zeros(count, int)
    for part, fit in zip(evidence, fits, strict=True):
        told = np.isfinite(fit)
        good = told & (fit >= _least(part, fit))
        verdict = np.where(good | (verdict == 1), 1, np.where(told, -1, verdict))
    return verdict


def _least(part: Evidence, fit: np.ndarray) -> float:
    share, floor = _FIT["corners" if isinstance(part, CornerEvidence) else "motion"]
    told = fit[np.isfinite(fit)]
    return max(share * float(np.median(told)), floor) if len(told) else floor


def _numbers(i: int, evidence: Sequence[Evidence], fits: Sequence[np.ndarray]) -> str:
    return "; ".join(
        f"{part.kind}: {fit[i]:.2f}, where the median camera reaches {np.nanmedian(fit):.2f} "
        f"and chance gives {part.chance:.2f}"
        for part, fit in zip(evidence, fits, strict=True)
        if np.isfinite(fit[i])
    )


def _one_wrong(names: Sequence[str], i: int, evidence: Sequence[Evidence], fits: Sequence[np.ndarray]) -> Finding:
    better = {signs: float(np.nan_to_num(_advantage(evidence, i, signs), nan=-1.0)) for signs in _FLIPS}
    best = max(better, key=lambda signs: better[signs])
    flipped = better[best] > _GAIN
    title = f"{names[i]}: an axis of its pose is flipped" if flipped else f"{names[i]}: pose and pictures disagree"
    remedy = (
        _FLIPS[best]
        if flipped
        else "calibrate it again; look first for a video under another camera's name, a picture that was turned or "
        "cropped, and a pose in other units or axes"
    )
    return Finding("poses", "error", title, _numbers(i, evidence, fits), remedy, (names[i],))


def _inexact(
    names: Sequence[str], verdicts: np.ndarray, evidence: Sequence[Evidence], fits: Sequence[np.ndarray]
) -> list[Finding]:
    """Cameras whose motion fits, which is coarse, but whose corners do not."""
    findings = []
    for part, fit in zip(evidence, fits, strict=True):
        told = fit[np.isfinite(fit)]
        if not isinstance(part, CornerEvidence) or not len(told) or np.median(told) < _TELLING:
            continue
        low = np.isfinite(fit) & (fit < _INEXACT * np.median(told)) & (verdicts == 1)
        findings += [
            Finding(
                "poses",
                "warning",
                f"{names[i]}: its pose is not exact",
                _numbers(i, evidence, fits),
                "calibrate it again, or leave it out: its rotation is off by a degree or more, or its position or "
                "focal length accordingly",
                (names[i],),
            )
            for i in np.flatnonzero(low).tolist()
        ]
    return findings


def _all_wrong(bad: Sequence[int], evidence: Sequence[Evidence], fits: Sequence[np.ndarray]) -> Finding:
    measured = "; ".join(
        f"{part.kind}: median {np.nanmedian(fit):.2f}, where chance gives {part.chance:.2f} and a perfect fit 1"
        for part, fit in zip(evidence, fits, strict=True)
        if np.isfinite(fit).any()
    )
    remedy = "check the convention of the poses: camera-to-world (not its inverse), OpenGL axes (x right, y up, z back)"
    return Finding("poses", "error", f"pictures of {len(bad)} cameras disagree with their poses", measured, remedy)


def _advantage(evidence: Sequence[Evidence], i: int, signs: Signs, partners: Signs = UNCHANGED) -> float:
    """How much better a camera fits with its axes turned by `signs`, mean over what tells; NaN where nothing does."""
    gains = []
    for part in evidence:
        turned, given = part.fit(i, signs, partners), part.fit(i)
        if np.isfinite(turned):
            gains.append(turned - (given if np.isfinite(given) else part.chance))
    return float(np.mean(gains)) if gains else float("nan")


def _meeting_findings(
    names: Sequence[str], meeting: Meeting, verdicts: np.ndarray, transform: SceneTransform
) -> list[Finding]:
    if meeting.point is None:
        return [Finding("poses", "ok", "optical axes are parallel", "they meet in no point: a forward-facing rig")]
    behind = meeting.distance < 0
    unit = 1 / transform.scale
    where = ", ".join(f"{value:.3g}" for value in transform.invert_points(meeting.point))
    miss = np.degrees(np.minimum(meeting.angle, np.pi - meeting.angle))
    measured = (
        f"the point closest to all optical axes is ({where}) in the data set's coordinates, at a median of "
        f"{np.median(np.abs(meeting.distance)) * unit:.3g} units; axes pass it by a median of {np.median(miss):.1f} "
        f"and at most {miss.max():.1f} degrees"
    )
    if behind.mean() > 0.8:
        confirmed = (verdicts[behind] == 1).mean() > 0.5
        return [
            Finding("poses", "ok", "cameras look outwards", measured)
            if confirmed
            else Finding(
                "poses",
                "warning",
                "cameras look away from one another",
                f"{measured}, behind {int(behind.sum())} of {len(names)} cameras",
                "if the rig looks inwards, the poses follow OpenCV's axes: negate columns 2 and 3 of their rotations",
            )
        ]
    findings = [
        Finding(
            "poses",
            "error",
            f"{names[i]} looks away from the others",
            f"the point that the optical axes share lies {-meeting.distance[i] * unit:.3g} units behind it",
            "correct its pose: most likely its y and z axes have the wrong sign (OpenCV's instead of OpenGL's), or the "
            "matrix is world-to-camera",
            (names[i],),
        )
        for i in np.flatnonzero(behind & (verdicts == 0)).tolist()
    ]
    if not findings:
        findings.append(Finding("poses", "ok", "optical axes meet", measured))
    return findings


def _remote(names: Sequence[str], poses: np.ndarray, transform: SceneTransform) -> list[Finding]:
    """Cameras so far from the others that their positions are in other units, or wrong."""
    position = poses[:, :, 3]
    if len(names) < 4:
        return []
    away = np.linalg.norm(position - np.median(position, axis=0), axis=1)
    usual = float(np.median(away))
    return [
        Finding(
            "poses",
            "error",
            f"{names[i]} stands far away",
            f"{away[i] / transform.scale:.3g} units from the middle of the cameras, where the median is "
            f"{usual / transform.scale:.3g}",
            "correct its position; look for another unit of length",
            (names[i],),
        )
        for i in np.flatnonzero(away > REMOTE * usual).tolist()
        if usual > 0
    ]

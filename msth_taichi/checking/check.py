"""All checks of a data set, and their report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from msth_taichi.checking.colors import color_findings, color_gains
from msth_taichi.checking.counts import count_findings, load_for_check, time_findings, videos_of
from msth_taichi.checking.epipolar import CornerEvidence, Evidence, MotionEvidence
from msth_taichi.checking.findings import Finding, failed
from msth_taichi.checking.layout import contact_sheet, draw_layout
from msth_taichi.checking.memory import memory_findings
from msth_taichi.checking.motion import UNCHANGED, Motion, Signs, energy, lags, motion_of
from msth_taichi.checking.poses import common_flip, meeting_point, pose_findings
from msth_taichi.checking.report import html_report, text_report
from msth_taichi.checking.samples import View, read_views
from msth_taichi.checking.timing import solve_lags, timing_findings
from msth_taichi.config import Config, load_preset
from msth_taichi.files import write_text
from msth_taichi.scene.scene import Scene

_PRESET = "multiview"
_SHOWN = 64  # sample frames on the page


@dataclass(frozen=True, eq=False)
class Report:
    """What was found.

    Args:
        name: of the data set.
        findings: of all checks.
        pictures: titles and pictures.
    """

    name: str
    findings: list[Finding]
    pictures: list[tuple[str, Image.Image]]

    @property
    def status(self) -> int:
        """1 if anything is an error, else 0."""
        return int(failed(self.findings))

    def lines(self) -> list[str]:
        """As text, worst first."""
        return text_report(self.findings)

    def write(self, path: Path) -> None:
        """As one HTML page.

        Raises:
            RunError: the path cannot be written.
        """
        write_text(path, html_report(self.name, self.findings, self.pictures))


def check(data: str, *, preset: str | None = None, settings: Sequence[str] = (), progress: bool = True) -> Report:
    """Look a data set over before a training is spent on it.

    Args:
        data: as for `load_scene`.
        preset: whose settings decide about sizes and memory; default: multiview.
        settings: overrides such as "data.downscale=2".
        progress: show a bar.
    Raises:
        DataError: nothing can be looked at; names the file and the remedy.

    Example:
        >>> check("synthetic:cameras=4,test_cameras=1,frames=3", progress=False).status
        0
    """
    config = load_preset(preset or _PRESET, list(settings))
    scene, findings = load_for_check(data, config.data)
    return check_scene(scene, config, findings, progress)


def check_scene(
    scene: Scene, config: Config | None = None, findings: Sequence[Finding] = (), progress: bool = True
) -> Report:
    """All checks of a scene that was loaded; `findings` come first in the report."""
    config = config or Config()
    views = read_views(scene, progress)
    whole = [view for view in views if len(view.stills)]
    names = [scene.cameras.names[view.camera] for view in whole]
    poses = scene.cameras.camera_to_world.double().numpy()[[view.camera for view in whole]]
    found = [*findings, *count_findings(scene, videos_of(scene), views), *time_findings(scene)]
    if len(whole) > 1:
        more, signs = _rig_findings(scene, whole, names, poses)
        found += more
        scene = replace(scene, cameras=scene.cameras.with_poses(_turned(scene.cameras.camera_to_world, signs)))
        poses = poses * [*signs, 1]
    # a camera that moves shows every time once: colours that differ may be things that moved
    comparable = scene.static_cameras or scene.num_frames == 1
    found += color_findings(names, color_gains(whole, scene.cameras) if comparable else None)
    found += extent_findings(scene, config)
    found += memory_findings(scene, config)
    return Report(scene.name, found, _pictures(scene, whole, names, poses, found))


def _rig_findings(
    scene: Scene, views: Sequence[View], names: Sequence[str], poses: np.ndarray
) -> tuple[list[Finding], Signs]:
    """Time and poses, which the same comparison of neighbours tells; and signs that mend the axes of all poses."""
    moving = _motions(scene, views) if scene.static_cameras else []
    evidence = _evidence(scene, views, poses, moving)
    signs, found = common_flip(names, poses, evidence)
    if signs != UNCHANGED:
        poses = poses * [*signs, 1]
        evidence = _evidence(scene, views, poses, moving)
    if scene.static_cameras:
        over = lags(int(np.median([len(view.grey) for view in views])) - 1)
        curves = {}
        for part in evidence:
            if isinstance(part, MotionEvidence):
                curves = part.curves(over)
        shifts = solve_lags(curves, [energy(view) for view in views], over)
        for part in evidence:
            if isinstance(part, MotionEvidence):
                part.frames = [shift.frames or 0 for shift in shifts]
        found += timing_findings(dict(zip(names, shifts, strict=True)), over, scene.fps)
    return found + pose_findings(names, poses, evidence, scene.transform, len(scene.cameras)), signs


def _motions(scene: Scene, views: Sequence[View]) -> list[Motion | None]:
    most = lags(int(np.median([len(view.grey) for view in views])) - 1)[-1]
    return [motion_of(view, scene.cameras) if len(view.grey) > 2 * most else None for view in views]


def _evidence(
    scene: Scene, views: Sequence[View], poses: np.ndarray, motions: Sequence[Motion | None]
) -> list[Evidence]:
    evidence: list[Evidence] = [CornerEvidence(views, scene.cameras, poses)]
    if any(motion is not None for motion in motions):
        evidence.insert(0, MotionEvidence(motions, poses, [0] * len(views)))
    return evidence


def _turned(poses: torch.Tensor, signs: Signs) -> torch.Tensor:
    return poses * torch.tensor([*signs, 1]).to(poses)


def extent_findings(scene: Scene, config: Config) -> list[Finding]:
    """Where the cameras are, in both units, and what that means for near plane and box."""
    position = scene.cameras.camera_to_world[:, :, 3].double().numpy()
    user = scene.transform.invert_points(position)
    low, high = user.min(0), user.max(0)
    measured = (
        f"cameras from ({_triple(low)}) to ({_triple(high)}) in the data set's units; a unit becomes "
        f"{scene.transform.scale:.4g} of the scene's, where they reach {np.abs(position).max():.3g} from the origin"
    )
    meeting = meeting_point(scene.cameras.camera_to_world.double().numpy())
    findings = []
    near = config.rays.near
    if meeting.point is not None:
        close = np.median(np.abs(meeting.distance))
        if close < 2 * near:
            findings.append(
                Finding(
                    "extent",
                    "warning",
                    "the scene lies at the near plane",
                    f"the cameras look at a point {close:.3g} scene units away, and rays start at {near:g}",
                    "raise data.scale_factor, or lower rays.near",
                )
            )
    reach = float(np.abs(position).max())
    if config.rays.contraction == "none" and reach > 4 * scene.box:
        remedy = "raise data.box so that it holds all that is seen, or lower data.scale_factor"
        box = f"cameras reach {reach:.3g} scene units, the box {scene.box:g}"
        findings.append(Finding("extent", "warning", "the scene box is small", box, remedy))
    if not 1e-2 < reach < 1e2:
        remedy = "leave data.auto_scale on, or choose data.scale_factor so that cameras reach about 0.5"
        findings.append(Finding("extent", "warning", "unusual scale", measured, remedy))
    return findings or [Finding("extent", "ok", "cameras and scene are of a usual size", measured)]


def _pictures(
    scene: Scene, views: Sequence[View], names: Sequence[str], poses: np.ndarray, found: Sequence[Finding]
) -> list[tuple[str, Image.Image]]:
    train = set(scene.images("train").camera.tolist())
    held_out = {i for i in range(len(scene.cameras)) if i not in train}
    bad = {name for finding in found if finding.level == "error" for name in finding.cameras}
    layout = draw_layout(scene.cameras, scene.box, held_out, bad, meeting_point(poses).point if len(poses) else None)
    pictures = [("Cameras, in scene units", layout)]
    shown = views[:: -(-len(views) // _SHOWN)] if views else []
    if shown:
        sheet = contact_sheet(
            [view.stills[len(view.stills) // 2] for view in shown],
            [scene.cameras.names[view.camera] for view in shown],
        )
        pictures.append(("Sample frames", sheet))
    return pictures


def _triple(values: np.ndarray) -> str:
    return ", ".join(f"{value:.3g}" for value in values)

"""Lists of renders: what `msth render` does, for one job of the command line or many of a file.

scale = 0.5                         # of all jobs that do not say otherwise

[[job]]
run = "runs/demo"
path = "orbit"
outputs = ["rgb", "depth"]

[[job]]
run = "runs/demo"
path = "spiral"
frames = 60
format = "png"
output = "frames"
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from tqdm import tqdm

from msth_taichi.config import nearest
from msth_taichi.errors import MsthError, RunError
from msth_taichi.rendering.outputs import require_trained
from msth_taichi.rendering.paths import make_path
from msth_taichi.rendering.plan import Plan, Request, make_plan, run_digest
from msth_taichi.rendering.render import reason_of, render_plan
from msth_taichi.rendering.shards import Shard
from msth_taichi.training.run import last_step, load_run, read_description, results_folder

_OF_PATHS = ("frames", "time", "fps", "speed", "lens", "size")
_OF_REQUESTS = ("outputs", "format", "codec", "mosaic", "scale", "still")


class Job(BaseModel):
    """One table of a job file. What is left out has the default of `msth render`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path = Field(description="a run folder, or a model file")
    output: Path | None = Field(default=None, description="file or folder; default: RUN/renders/PATH, named by outputs")
    step: int | None = Field(default=None, ge=0, description="checkpoint; default: the last")
    path: str = Field(default="spiral", description="name or file of the camera path")
    frames: int | None = Field(default=None, description="of the path")
    time: str | None = Field(default=None, coerce_numbers_to_str=True, description="of the path")
    fps: float | None = Field(default=None, description="of the path")
    speed: float | None = Field(default=None, description="of the path")
    lens: str | None = Field(default=None, description="of the path")
    size: str | tuple[int, int] | None = Field(default=None, description="of the path")
    outputs: tuple[str, ...] = Field(default=("rgb",), description="what is rendered; a list, or split by commas")
    format: str = Field(default="mp4", description="how it is written")
    codec: str = Field(default="h264", description="of mp4")
    mosaic: bool = Field(default=False, description="outputs side by side in one file")
    scale: float = Field(default=1.0, description="image size as a multiple of the training images'")
    still: float | None = Field(default=None, description="mask below which things move, for cameras that stand still")

    @field_validator("outputs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    def request(self) -> Request:
        """What is rendered of each frame."""
        return Request(**{name: getattr(self, name) for name in _OF_REQUESTS})

    def place(self, request: Request) -> Path:
        """Where it is written: `output`, or RUN/renders/PATH-NAME of one file, RUN/renders/PATH of several."""
        if self.output is not None:
            return self.output
        file = self.path.endswith(".json")
        name = Path(self.path).stem if file else self.path.replace("/", "_")  # cameras may have dots and folders
        name += f"-{request.names[0]}" if len(request.names) == 1 else ""
        return results_folder(self.run) / "renders" / (name + request.kind.suffix)


@dataclass(frozen=True)
class Report:
    """What became of a list of jobs.

    Attributes:
        files: that are finished.
        failures: a line for each job that is not, but could be.
        waiting: outputs that lack frames of other processes.
    """

    files: list[Path]
    failures: list[str]
    waiting: list[Path]

    def lines(self) -> list[str]:
        """What to tell of all but the failures."""
        waiting = [
            f"{place}: this part is rendered; the process that renders the last one writes it" for place in self.waiting
        ]
        return [str(file) for file in self.files] + waiting


def load_jobs(file: Path, given: Mapping[str, Any] | None = None) -> list[Job]:
    """The jobs of a TOML file.

    Args:
        file: `[[job]]` tables with the fields of `Job`; fields at the top are those of all jobs that do not say
            otherwise.
        given: fields that overrule the file's.
    Raises:
        RunError: not readable, no job, or a field that is unknown or wrong.

    Example:
        >>> [job.path for job in load_jobs(Path("jobs.toml"))]
        ['orbit', 'spiral']
    """
    try:
        values = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{file}: not a readable job file ({error}); correct it") from error
    tables = values.pop("job", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise RunError(f"{file}: no job; write each as a table that begins with [[job]]")
    return [parse_job({**values, **table, **(given or {})}, f"{file}, job {k}") for k, table in enumerate(tables, 1)]


def parse_job(values: Mapping[str, Any], origin: str) -> Job:
    """A job from plain values; `origin` names their source in errors.

    Raises:
        RunError: a field that is missing, unknown or wrong.
    """
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            reason = f"unknown field '{name}'{nearest(name, list(Job.model_fields))}"
        elif problem["type"] == "missing":
            reason = f"no '{name}'; name the run folder"
        else:
            reason = f"{name} = {problem['input']!r}: {problem['msg']}"
        raise RunError(f"{origin}: {reason}") from None


def render_jobs(
    jobs: Sequence[Job],
    *,
    shard: Shard | None = None,
    arch: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Report:
    """Render jobs one after the other; what is finished is skipped, and what fails does not hold up the rest.

    Args:
        jobs: from `load_jobs`. All are checked before the first is begun.
        shard: which frames of each job; default: all.
        arch: "auto", "cpu" or "cuda".
        overwrite: replace what exists.
        progress: show one bar over all jobs.
    Raises:
        MsthError: a job that cannot be met; nothing has been rendered then.
    """
    shard = shard or Shard()
    jobs, plans = _plan_all(jobs, overwrite)
    report = Report([], [], [])
    opened = lru_cache(maxsize=1)(load_run)  # jobs of one run usually follow one another
    begun = next((job for job, plan in zip(jobs, plans, strict=True) if plan.unfinished()), None)
    if begun is not None:
        opened(begun.run, begun.step, arch)  # a device that is not there is the same for all jobs
    total = sum(len(shard.frames(len(plan.path))) for plan in plans)
    with tqdm(total=total, desc="render", unit="frame", disable=None if progress else True) as bar:
        for job, plan in zip(jobs, plans, strict=True):
            place, end = job.place(plan.request), bar.n + len(shard.frames(len(plan.path)))
            bar.set_description(place.name)
            try:
                outcome = render_plan(partial(opened, job.run, job.step, arch), plan, shard, bar.update)
            except Exception as error:  # whatever it is, the other jobs may do without
                named = isinstance(error, MsthError)
                report.failures.append(str(error) if named else f"{place}: {reason_of(error)}")
                bar.update(end - bar.n)
                continue
            report.files.extend(outcome.files)
            if outcome.failures:
                report.failures.append(f"{place}: {outcome.describe()}")
            elif not outcome.files:
                report.waiting.append(place)
    return report


def _plan_all(jobs: Sequence[Job], overwrite: bool) -> tuple[list[Job], list[Plan]]:
    """Plans, and their jobs with steps: a training that goes on must not come between check and render."""
    last = lru_cache(last_step)
    digests: dict[tuple[Path, int | None], str] = {}
    owners: dict[Path, int] = {}
    stepped, plans = [], []
    for number, job in enumerate(jobs, 1):
        try:
            request = job.request()
            config, scene = read_description(job.run)
            if job.step is None:
                job = job.model_copy(update={"step": last(job.run)})
            require_trained(request.outputs, config, compact=job.run.is_file())
            given = {name: value for name in _OF_PATHS if (value := getattr(job, name)) is not None}
            path = make_path(scene, job.path, **given)
            source = (job.run, job.step)
            if source not in digests:
                digests[source] = run_digest(*source)
            plan = make_plan(path, request, job.place(request), digests[source], overwrite)
            for file in (*plan.files.values(), plan.work.path):
                if (owner := owners.setdefault(file.resolve(), number)) != number:
                    raise RunError(f"{file}: is written by job {owner} too; give one of them another output")
        except MsthError as error:
            raise type(error)(f"job {number}: {error}" if len(jobs) > 1 else str(error)) from error
        stepped.append(job)
        plans.append(plan)
    return stepped, plans

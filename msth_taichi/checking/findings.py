"""What a check found."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Args:
        check: counts, time, synchronisation, poses, colours, extent or memory.
        level: "error" spoils a training, "warning" may cost quality, "ok" is as it should be.
        title: what is the matter, in a few words.
        measured: what was measured, with numbers.
        remedy: what to do; empty where there is nothing to do.
        cameras: names of those that it is about.

    Example:
        >>> Finding("counts", "ok", "31 cameras", "27 train, 4 test").line()
        'ok       counts: 31 cameras; 27 train, 4 test'
    """

    check: str
    level: Level
    title: str
    measured: str
    remedy: str = ""
    cameras: tuple[str, ...] = ()

    def line(self) -> str:
        """As text for a terminal."""
        text = f"{self.level:<8} {self.check}: {self.title}; {self.measured}"
        return f"{text}; to do: {self.remedy}" if self.remedy else text


def failed(findings: Iterable[Finding]) -> bool:
    """Whether any of them is an error."""
    return any(finding.level == "error" for finding in findings)


def listing(names: Iterable[str], most: int = 12) -> str:
    """Names in one line, the first of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

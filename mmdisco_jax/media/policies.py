# SPDX-License-Identifier: Apache-2.0
"""Policies for problem files: stop, skip or repair, chosen separately for each problem."""

import dataclasses
from collections.abc import Sequence

from mmdisco_jax.media.entries import Entry
from mmdisco_jax.media.inspection import PROBLEMS, Inspection

ACTIONS = {
    "on_missing_file": ("error", "skip"),
    "on_corrupt": ("error", "skip", "keep"),
    "on_missing_video": ("error", "skip", "black"),
    "on_missing_audio": ("error", "skip", "silence"),
    "on_short": ("error", "skip", "hold"),
    "on_duplicate": ("error", "skip", "keep"),
    "on_silent": ("error", "skip", "keep"),
    "on_odd_rate": ("error", "skip", "keep"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policies:
    """One action for each problem: "error", "skip", or a remedy from `ACTIONS`.

    "error" stops the run before anything is cut. "skip" leaves the file out and lists it in the
    quarantine report. "keep" takes the file as it is; `on_corrupt="keep"` keeps the clips before
    the damage. "black" and "silence" replace a missing stream. "hold" makes one clip of a shorter
    file by holding its last picture and adding silence. Raises ValueError for any other action.
    """

    on_missing_file: str = "error"
    on_corrupt: str = "error"
    on_missing_video: str = "error"
    on_missing_audio: str = "error"
    on_short: str = "error"
    on_duplicate: str = "skip"
    on_silent: str = "keep"
    on_odd_rate: str = "keep"

    def __post_init__(self) -> None:
        for name, known in ACTIONS.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {known}.")

    def action(self, problem: str) -> str:
        """Returns the action for a problem; "keep" for "" (no problem)."""
        return getattr(self, f"on_{problem}") if problem else "keep"

    def substitutes(self) -> dict[str, bool]:
        """Returns the substitutes for missing streams, as keyword arguments of `Part`."""
        return {
            "silence": self.on_missing_audio == "silence",
            "black": self.on_missing_video == "black",
            "hold": self.on_short == "hold",
        }


class PolicyError(ValueError):
    """Raised when files have problems whose policy is "error"; names some files and the remedy."""


def mark_duplicates(
    entries: Sequence[Entry], inspections: Sequence[Inspection], policies: Policies
) -> list[Inspection]:
    """Marks each file whose content equals that of an earlier file as a duplicate.

    Several parts of one file are not duplicates. A file that another problem makes an error, or
    skips, keeps that problem.
    """
    first: dict[str, str] = {}
    marked = []
    for entry, inspection in zip(entries, inspections, strict=True):
        if inspection.sha256 and policies.action(inspection.problem) not in ("error", "skip"):
            other = first.setdefault(inspection.sha256, entry.name)
            if other != entry.name:
                inspection = dataclasses.replace(
                    inspection, problem="duplicate", reason=f"has the same content as {other}"
                )
        marked.append(inspection)
    return marked


def require_allowed(
    entries: Sequence[Entry], inspections: Sequence[Inspection], policies: Policies
) -> None:
    """Raises PolicyError if any file has a problem whose policy is "error"."""
    wrong = [
        (entry, inspection)
        for entry, inspection in zip(entries, inspections, strict=True)
        if policies.action(inspection.problem) == "error"
    ]
    if not wrong:
        return
    names = "; ".join(f"{entry.name}: {found.reason}" for entry, found in wrong[:3])
    more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    remedies = sorted({f"on_{found.problem}" for _, found in wrong})
    choices = " ".join(f"{name}={' or '.join(ACTIONS[name][1:])}" for name in remedies)
    raise PolicyError(
        f"{len(wrong)} of {len(entries)} files cannot be used: {names}{more}. Mend them, leave "
        f"them out, or set {choices}."
    )


def counts(inspections: Sequence[Inspection]) -> dict[str, int]:
    """Counts the inputs by problem: {"fine": n, each key of `PROBLEMS`: n}."""
    found = [inspection.problem for inspection in inspections]
    return {"fine": found.count("")} | {problem: found.count(problem) for problem in PROBLEMS}

# SPDX-License-Identifier: Apache-2.0
"""What to do with a file that has a problem: one choice for each problem, none of them silent."""

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
    """For each problem "error" (stop before anything is cut), "skip" (quarantine), or a remedy.

    `on_corrupt="keep"` keeps the clips before the damage; "black" and "silence" stand for what a
    file lacks; "hold" makes one clip of a shorter file, with its last picture held and silence;
    "keep" takes the file as it is. Raises ValueError for anything else.
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
        """What to do with a file that has the problem; "keep" for none."""
        return getattr(self, f"on_{problem}") if problem else "keep"

    def stand_ins(self) -> dict[str, bool]:
        """The remedies, as `Part` takes them."""
        return {
            "silence": self.on_missing_audio == "silence",
            "black": self.on_missing_video == "black",
            "hold": self.on_short == "hold",
        }


class PolicyError(ValueError):
    """Files have problems that the policies call errors; names the first ones and the remedy."""


def mark_duplicates(
    entries: Sequence[Entry], inspections: Sequence[Inspection], policies: Policies
) -> list[Inspection]:
    """The inspections, where a file with the content of an earlier one is a duplicate.

    Parts of one file are no duplicates, and a file that is left out (or is an error) for a problem
    of its own keeps that problem.
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
    """PolicyError if a problem that is an error occurs."""
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
    """{"fine": n, each problem: n}."""
    found = [inspection.problem for inspection in inspections]
    return {"fine": found.count("")} | {problem: found.count(problem) for problem in PROBLEMS}

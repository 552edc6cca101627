# SPDX-License-Identifier: Apache-2.0
"""Loading of media files as sampling conditions: the first clip of each file."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmdisco_jax.media.cutting import ClipSpec, Window
from mmdisco_jax.media.entries import MEDIA_SUFFIXES, SILENT_SUFFIXES, SOUND_SUFFIXES, Entry
from mmdisco_jax.media.inspection import PROBLEMS, Inspection
from mmdisco_jax.media.pieces import read_piece
from mmdisco_jax.media.policies import Policies, PolicyError, require_allowed
from mmdisco_jax.media.preflight import after_cutting, cut_all, inspect_all

MODALITIES = ("audio", "video")
# Problems that matter only if they concern the modality that is given.
_MODALITY_PROBLEMS = ("missing_audio", "missing_video", "short", "silent", "odd_rate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionClip:
    """One condition: a file's name, the SHA-256 of its content, and its first clip.

    Only the given modality of `window` matters; the other one is black or silent where the file
    lacks it.
    """

    name: str
    sha256: str
    window: Window


def read_conditions(
    path: str | Path,
    given: str,
    spec: ClipSpec,
    *,
    on_short: str = "error",
    on_odd_rate: str = "error",
) -> list[ConditionClip]:
    """Reads the first clip of a file, or of every media file under a folder, sorted by name.

    Args:
      path: a file or a folder.
      given: "audio" or "video", the modality to condition on. Files may lack the other one.
      spec: the clips that the model expects. Higher rates and other sizes are converted to it.
      on_short: for a file shorter than one clip: "error", "hold" (hold its last picture and end in
        silence) or "skip".
      on_odd_rate: for a file with fewer frames or samples a second than `spec`: "error", "keep"
        (repeat frames, interpolate sound) or "skip".

    Raises:
      FileNotFoundError: there is no such file or folder, or the folder has no media files.
      ValueError: an unknown choice, or every file was skipped.
      PolicyError (a ValueError): a file cannot serve as a condition; names file, reason and remedy.
    """
    if given not in MODALITIES:
        raise ValueError(f"given is {given!r}: choose one of {', '.join(MODALITIES)}.")
    policies = Policies(
        on_missing_audio="silence" if given == "video" else "error",
        on_missing_video="black" if given == "audio" else "error",
        on_short=on_short,
        on_odd_rate=on_odd_rate,
    )
    entries = _entries(Path(path).expanduser(), given)
    with tempfile.TemporaryDirectory(prefix="conditions") as work:
        found = inspect_all(entries, spec, Path(work), num_workers=1)
        found = [_problem_of_given(inspection, given, spec) for inspection in found]
        entries, found = _keep_allowed(entries, found, policies)
        pieces = cut_all(entries, spec, policies, Path(work), num_workers=1)
        # Only cutting shows whether the given modality by itself is long enough.
        found = [after_cutting(*pair) for pair in zip(found, pieces, strict=True)]
        whole = {e.name: p for e, p in zip(entries, pieces, strict=True)}
        entries, found = _keep_allowed(entries, found, policies)
        return [
            ConditionClip(
                name=entry.name,
                sha256=inspection.sha256,
                window=next(iter(read_piece(whole[entry.name], spec, 0, 1))),
            )
            for entry, inspection in zip(entries, found, strict=True)
        ]


def _entries(path: Path, given: str) -> list[Entry]:
    """The file itself, or the media files under the folder, sorted by name."""
    if path.is_file():
        return [Entry(name=path.name, path=path, max_clips=1)]
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder {path}: pass the media to be conditioned on.")
    suffixes = set(MEDIA_SUFFIXES)
    if given == "audio":
        suffixes = suffixes.difference(SILENT_SUFFIXES).union(SOUND_SUFFIXES)
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        raise FileNotFoundError(
            f"no file with {given} under {path} (looked for {', '.join(sorted(suffixes))}): pass "
            "another folder, or convert the files."
        )
    return [Entry(name=p.relative_to(path).as_posix(), path=p, max_clips=1) for p in files]


def _problem_of_given(inspection: Inspection, given: str, spec: ClipSpec) -> Inspection:
    """The inspection with only those problems that concern the given modality.

    Whether it is long enough is left to cutting.
    """
    if inspection.problem not in _MODALITY_PROBLEMS or inspection.problem == f"missing_{given}":
        return inspection
    rate, wanted, what = {
        "audio": (inspection.sample_rate_hz, spec.sample_rate_hz, "samples"),
        "video": (inspection.fps, spec.fps, "frames"),
    }[given]
    if rate >= 0.99 * wanted:
        return dataclasses.replace(inspection, problem="", reason="")
    reason = f"{PROBLEMS['odd_rate']}: {rate:.6g} {what} a second, of {wanted:g}"
    return dataclasses.replace(inspection, problem="odd_rate", reason=reason)


def _keep_allowed(
    entries: Sequence[Entry], inspections: Sequence[Inspection], policies: Policies
) -> tuple[list[Entry], list[Inspection]]:
    """Drops the entries that are skipped; PolicyError for errors, ValueError if none is left."""
    try:
        require_allowed(entries, inspections, policies)
    except PolicyError as error:
        raise PolicyError(f"as conditions, {error}") from error
    kept = [
        (entry, inspection)
        for entry, inspection in zip(entries, inspections, strict=True)
        if policies.action(inspection.problem) != "skip"
    ]
    if not kept:
        pairs = zip(entries, inspections, strict=True)
        reasons = "; ".join(f"{e.name}: {i.reason}" for e, i in pairs)
        raise ValueError(f"no condition is left: {reasons}. Give media that fit the clips.")
    return [entry for entry, _ in kept], [inspection for _, inspection in kept]

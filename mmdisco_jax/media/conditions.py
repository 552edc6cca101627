# SPDX-License-Identifier: Apache-2.0
"""Media files as conditions: the first clip of a file, or of each file of a folder."""

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
_OF_ONE_MODALITY = ("missing_audio", "missing_video", "short", "silent", "odd_rate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionClip:
    """One condition: the file's name and content hash, and its first clip.

    Of the window only the given modality counts; what the file lacks of the other is black or
    silent.
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
    """The first clip of the file `path`, or of each media file under the folder `path`, by name.

    Args:
      given: "audio" or "video": the modality that every file must have. It may lack the other.
      spec: the clips that the model knows. Higher rates and other sizes are converted to it.
      on_short: a file shorter than one clip: "error"; "hold" its last picture, with silence; or
        "skip".
      on_odd_rate: fewer frames or samples a second than the model knows: "error", "keep" (frames
        are repeated, sound is interpolated) or "skip".

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: an unknown choice, or no file is left.
      PolicyError (a ValueError): a file cannot serve as condition; names it, why, and the remedy.
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
        found = [_for_given(inspection, given, spec) for inspection in found]
        entries, found = _allowed(entries, found, policies)
        pieces = cut_all(entries, spec, policies, Path(work), num_workers=1)
        # Cutting shows what inspecting could not: what of the given modality alone is too short.
        found = [after_cutting(*pair) for pair in zip(found, pieces, strict=True)]
        whole = {e.name: p for e, p in zip(entries, pieces, strict=True)}
        entries, found = _allowed(entries, found, policies)
        return [
            ConditionClip(
                name=entry.name,
                sha256=inspection.sha256,
                window=next(iter(read_piece(whole[entry.name], spec, 0, 1))),
            )
            for entry, inspection in zip(entries, found, strict=True)
        ]


def _entries(path: Path, given: str) -> list[Entry]:
    """The file itself, or the media files under the folder in the order of their names."""
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


def _for_given(inspection: Inspection, given: str, spec: ClipSpec) -> Inspection:
    """With the problems of the given modality alone; of its length, cutting will tell."""
    if inspection.problem not in _OF_ONE_MODALITY or inspection.problem == f"missing_{given}":
        return inspection
    rate, wanted, what = {
        "audio": (inspection.sample_rate_hz, spec.sample_rate_hz, "samples"),
        "video": (inspection.fps, spec.fps, "frames"),
    }[given]
    if rate >= 0.99 * wanted:
        return dataclasses.replace(inspection, problem="", reason="")
    reason = f"{PROBLEMS['odd_rate']}: {rate:.6g} {what} a second, of {wanted:g}"
    return dataclasses.replace(inspection, problem="odd_rate", reason=reason)


def _allowed(
    entries: Sequence[Entry], inspections: Sequence[Inspection], policies: Policies
) -> tuple[list[Entry], list[Inspection]]:
    """The entries that are not left out; PolicyError, or ValueError if none is left."""
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

# SPDX-License-Identifier: Apache-2.0
"""Check of datasets that an earlier version has cut, for files that it showed otherwise.

A dataset's name does not change with the version, so that ordinary files need no second cut. What
changed for odd files is found here, once, and never mixed in silence.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmdisco_jax.io import write_bytes
from mmdisco_jax.media.builder import MediaBuilder
from mmdisco_jax.media.entries import Entry
from mmdisco_jax.media.inspection import Inspection, problems_of
from mmdisco_jax.media.preflight import inspect_all
from mmdisco_jax.media.tracks import NOT_THE_FIRST

# Version 1 took the first tracks, combed pictures and the colours of HDR as they are, BT.601 for HD
# that names no matrix, and FFmpeg's guess for the times of reordered pictures in AVI; it turned
# mirrored pictures wrongly.
CUTTING_VERSION = 2
_CHANGED_PROBLEMS = ("no_times", "interlaced", "hdr")
_CHANGED_DISPLAY = ("mirrored", "colours taken for")


class EarlierCutError(ValueError):
    """Raised for a dataset whose clips an earlier version has cut otherwise; names the folder."""


def require_present_cut(
    builder: MediaBuilder, entries: Sequence[Entry], report: Path, *, num_workers: int
) -> None:
    """Checks that a prepared dataset is as this version would cut it.

    A dataset of an earlier version is inspected again, and if it passes, its report says so.

    Args:
      report: preflight.json beside the records.

    Raises:
      EarlierCutError: this version shows some of its files otherwise.
    """
    content = json.loads(report.read_text()) if report.exists() else {}
    if content.get("cutting", 1) >= CUTTING_VERSION:
        return
    left_out = {row["file"] for row in content.get("files", ()) if not row["clips"]}
    used = [entry for entry in entries if entry.name not in left_out]
    with tempfile.TemporaryDirectory(prefix="inspect") as work:
        found = inspect_all(used, builder.options.spec(), Path(work), num_workers=num_workers)
    pairs = zip(used, found, strict=True)
    changed = [f"{entry.name}: {why}" for entry, one in pairs if (why := _change(one))]
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise EarlierCutError(
            f"{report.parent} was prepared by an earlier version, which cut {len(changed)} of its "
            f"files otherwise: {'; '.join(changed[:3])}{more}. Remove that folder and prepare "
            "again, or go on with the earlier version."
        )
    if content:
        content = {"cutting": CUTTING_VERSION, **content}
        write_bytes(report, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _change(inspection: Inspection) -> str:
    """Why version 1 has cut the file otherwise; "" if it has not."""
    problems = problems_of(inspection)
    if NOT_THE_FIRST in problems.get("several_tracks", ""):
        return problems["several_tracks"]
    for name in _CHANGED_PROBLEMS:
        if name in problems:
            return problems[name]
    changed = any(word in inspection.changes for word in _CHANGED_DISPLAY)
    return inspection.changes if changed else ""

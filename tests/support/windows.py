# SPDX-License-Identifier: Apache-2.0
"""A window of a media file that starts at a given time, decoded from the file's beginning."""

import os

from mmdisco_jax.media import cutting
from mmdisco_jax.media.cutting import ClipSpec, Part, Window


def window_at(path: str | os.PathLike[str], start_seconds: float, spec: ClipSpec) -> Window:
    """The window from `start_seconds` of the file's clock on, at a frame or between two."""
    streams = cutting._streams(path, None, spec, Part(), lambda: None, 0)
    with streams as (pictures, sound, _):
        window = cutting._cut(pictures, sound, start_seconds, spec, hold=False)
    assert window is not None, f"{path} has no whole window at {start_seconds} s"
    return window

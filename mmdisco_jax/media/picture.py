# SPDX-License-Identifier: Apache-2.0
"""One decoded frame to RGB pixels of the wanted size, aspect kept."""

import functools

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

SPATIAL_POLICIES = ("pad", "centre_crop", "resize")
_INTERPOLATION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def fit(
    frame: av.VideoFrame,
    *,
    height: int,
    width: int,
    policy: str,
    pixel_aspect: float = 1.0,
    reformatter: VideoReformatter | None = None,
) -> np.ndarray:
    """The frame as it is displayed, uint8 [height width 3].

    "pad": the whole picture, centred on black; "centre_crop": the middle of it, filling the frame;
    "resize": the whole picture, stretched to the frame.
    Bicubic (swscale widens the kernel when it shrinks, so there is no aliasing). Turned upright as
    the file's display matrix says, and non-square pixels (`pixel_aspect` = width / height of one)
    are made square. A `reformatter` that is kept for frames of one size is eight times as fast:
    its filters are made once.
    """
    quarter_turns = round((frame.rotation or 0) / 90) % 4
    shown = np.array([frame.height, frame.width * pixel_aspect])
    wanted = np.array([height, width])
    if quarter_turns % 2:
        wanted = wanted[::-1]
    scales = wanted / shown
    scale = {"centre_crop": scales.max(), "pad": scales.min(), "resize": scales}[policy]
    rows, columns = (int(n) for n in np.maximum(np.rint(shown * scale), 1))
    reformat = frame.reformat
    if reformatter is not None:
        reformat = functools.partial(reformatter.reformat, frame)
    resized = reformat(width=columns, height=rows, format="rgb24", interpolation=_INTERPOLATION)
    # The display matrix counts anticlockwise, and so does rot90.
    return centred(np.rot90(resized.to_ndarray(), quarter_turns), height, width)


def centred(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle [height width 3] of `picture`, with black where it is smaller."""
    for axis, size in ((0, height), (1, width)):
        excess = picture.shape[axis] - size
        if excess > 0:
            picture = np.take(picture, range(excess // 2, excess // 2 + size), axis=axis)
        elif excess < 0:
            borders = [(0, 0)] * picture.ndim
            borders[axis] = (-excess // 2, -excess - (-excess // 2))
            picture = np.pad(picture, borders)
    return picture

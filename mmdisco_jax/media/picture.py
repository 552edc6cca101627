# SPDX-License-Identifier: Apache-2.0
"""Conversion of decoded video frames to RGB pictures of a fixed size."""

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
    """Fits a frame into height x width pixels, as it should be displayed.

    The picture is turned upright by the file's display matrix, its pixels are made square, and it
    is scaled by bicubic interpolation. swscale widens the kernel when it shrinks, so there is no
    aliasing.

    Args:
      policy: "pad" centres the whole picture on black; "centre_crop" fills the frame with the
        middle of the picture; "resize" stretches the whole picture to the frame.
      pixel_aspect: width / height of one pixel of the frame.
      reformatter: pass the same one for all frames of one size: its filters are then computed once,
        which is eight times as fast.

    Returns:
      uint8 [height width 3], RGB.
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
    """Crops or pads `picture` [h w 3] around its centre to [height width 3]; padding is black."""
    for axis, size in ((0, height), (1, width)):
        excess = picture.shape[axis] - size
        if excess > 0:
            picture = np.take(picture, range(excess // 2, excess // 2 + size), axis=axis)
        elif excess < 0:
            borders = [(0, 0)] * picture.ndim
            borders[axis] = (-excess // 2, -excess - (-excess // 2))
            picture = np.pad(picture, borders)
    return picture

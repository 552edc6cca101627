# SPDX-License-Identifier: Apache-2.0
"""Ball tracker for the pictures of generated bounce clips.

Strict about the ball (a blob that is not the world's ball is no ball), lenient about the rest:
frames without one are gaps, not guesses.
"""

import dataclasses

import cv2
import numpy as np

from mmdisco_jax.worlds.bounce import physics

# One frame's ball is plausible if its area is within this factor of the true disc's, its overlap
# with the true disc at its centre (soft intersection over union) reaches MIN_OVERLAP, and its
# colour lies within MAX_COLOUR_ERROR of one of the four (mean RGB distance over the disc; two
# colours are at least 166 apart). Real clips: area within 3 %, overlap > .96, error < 2.
MAX_AREA_FACTOR = 1.45
MIN_OVERLAP = 0.72
MAX_COLOUR_ERROR = 60.0
# Cover below this is taken for noise of the background, not for a part of the ball.
MIN_COVER = 0.25
TRUE_AREA = np.pi * (physics.RADIUS**2 + 1 / 12)  # of a disc whose rim falls off over one pixel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """Track of one clip's ball: presence, centre and colour by frame.

    present bool [f]; centre float64 [f, 2] as (y, x) in pixels, nan where absent; colour int [f],
    index into `physics.COLOURS`, -1 where absent.
    """

    present: np.ndarray
    centre: np.ndarray
    colour: np.ndarray

    def clip_colour(self) -> int:
        """Colour of more than half of the frames with a ball, or -1.

        It is -1 too if less than a quarter of all frames have one.
        """
        if 4 * self.present.sum() < len(self.present):
            return -1
        votes = np.bincount(self.colour[self.present], minlength=len(physics.COLOURS))
        return int(votes.argmax()) if 2 * votes.max() > votes.sum() else -1


def track_ball(video: np.ndarray) -> Track:
    """Finds the ball in each frame of one clip, uint8 [f, 32, 32, 3]."""
    size = physics.FRAME_SIZE
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[1:] != (size, size, 3):
        raise ValueError(
            f"video is {video.dtype} {video.shape}; a bounce clip is uint8 [f, {size}, {size}, 3]"
        )
    frames = video.astype(np.float64)
    colours, covers = _explain(frames)
    found = [_locate(*one) for one in zip(frames, colours, covers, strict=True)]
    colour = np.array([index for index, _, _ in found])
    return Track(present=colour >= 0, centre=np.array([(y, x) for _, y, x in found]), colour=colour)


# Pixel centres (y, x), the scene without a ball, and the way from it to each colour [4, 32, 32, 3].
_PIXELS = np.arange(physics.FRAME_SIZE) + 0.5
_GRID = np.meshgrid(_PIXELS, _PIXELS, indexing="ij")
_SCENE = physics.render(np.array([-99.0]), np.array([-99.0]), physics.COLOURS[0])[0].astype(
    np.float64
)
_TOWARDS = physics.COLOURS[:, None, None] - _SCENE


def _explain(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits each frame as scene + cover * (colour - scene): the best colour and its cover.

    Least squares: cover = <d, c> / |c|^2 for d = frame - scene, and what stays unexplained is
    |d|^2 - 2 cover <d, c> + cover^2 |c|^2, whose first term is the same for every colour.
    """
    along = np.einsum("fhwc,khwc->fkhw", frames - _SCENE, _TOWARDS)
    length = (_TOWARDS**2).sum(-1)
    cover = np.clip(along / length, 0.0, 1.0)
    best = (cover * (cover * length - 2 * along)).sum((2, 3)).argmin(1)
    return best, cover[np.arange(len(frames)), best]


def _locate(frame: np.ndarray, colour: int, cover: np.ndarray) -> tuple[int, float, float]:
    """(colour, y, x) of the plausible ball in a frame, or (-1, nan, nan)."""
    absent = (-1, np.nan, np.nan)
    count, labels = cv2.connectedComponents((cover >= MIN_COVER).astype(np.uint8), connectivity=4)
    if count == 1:  # the background alone
        return absent
    areas = np.bincount(labels.ravel(), weights=cover.ravel())[1:]
    area = areas.max()
    if not TRUE_AREA / MAX_AREA_FACTOR <= area <= TRUE_AREA * MAX_AREA_FACTOR:
        return absent
    cover = np.where(labels == 1 + areas.argmax(), cover, 0.0)
    y, x = (float((cover * grid).sum() / area) for grid in _GRID)
    disc = np.clip(physics.RADIUS + 0.5 - np.hypot(_GRID[0] - y, _GRID[1] - x), 0.0, 1.0)
    overlap = np.minimum(cover, disc).sum() / np.maximum(cover, disc).sum()
    ideal = _SCENE + disc[..., None] * _TOWARDS[colour]
    error = (np.linalg.norm(frame - ideal, axis=-1) * disc).sum() / disc.sum()
    if overlap < MIN_OVERLAP or error > MAX_COLOUR_ERROR:
        return absent
    return int(colour), y, x

# SPDX-License-Identifier: Apache-2.0
"""Random-shift cross-attention between video and audio (MM-Diffusion, Ruan et al. 2023, 3.3).

A clip is cut into f segments, one per video frame. A segment has P tokens of video and A = l // f
tokens of audio; the last audio segment also takes the remainder of the l tokens. Segment i of one
modality attends only to the other modality's tokens

    ((i + shift) * size + j) mod n,     0 <= j < window * size,

where size and n are A and l for audio, P and f * P for video. The official code draws a shift of
0 .. f - window in every block and call, even when it samples. Here the shift is an argument, so
that a rematerialised backward pass sees the windows of the forward pass.
"""

import jax.numpy as jnp

from mmdisco_jax.nn.attention import einsum_attention
from mmdisco_jax.types import Array


def check_window(window: int, num_frames: int) -> None:
    """Raise ValueError unless 1 <= window <= num_frames."""
    if not 1 <= window <= num_frames:
        raise ValueError(
            f"a cross-attention window of {window} frames does not fit a clip of {num_frames}: it "
            "must be 1 .. the number of frames; use a smaller window or longer clips"
        )


def random_shift_attention(
    video: Array, audio: Array, num_frames: int, window: int, shift: Array | int | None = None
) -> tuple[Array, Array]:
    """Attend from each modality's tokens to a moving window of the other's.

    Args:
      video, audio: queries, keys and values, [b f*P 3 heads d] and [b l 3 heads d], l >= f.
      num_frames: f.
      window: number of segments that a token sees, 1 .. f.
      shift: int32 scalar in 0 .. f - window, which may be traced. None means 0 and saves the roll.

    Returns:
      The attended values (video [b f*P heads d], audio [b l heads d]).

    Raises:
      ValueError: the window or the numbers of tokens do not fit the frames.
    """
    check_window(window, num_frames)
    if video.shape[1] % num_frames:
        raise ValueError(f"{video.shape[1]} video tokens are no multiple of {num_frames} frames")
    if audio.shape[1] < num_frames:
        raise ValueError(
            f"{audio.shape[1]} audio tokens cannot form {num_frames} segments, one per frame: use "
            "longer audio, fewer frames, or cross-attention at a finer level"
        )
    return (
        _cross_attend(video, audio, num_frames, window, shift),
        _cross_attend(audio, video, num_frames, window, shift),
    )


def _cross_attend(
    own: Array, other: Array, count: int, window: int, shift: Array | int | None
) -> Array:
    """Attend from `own` [b n 3 h d] to windows of `other` [b m 3 h d]: -> [b n h d]."""
    queries, pairs = own[:, :, 0], other[:, :, 1:]
    if window == count and other.shape[1] % count == 0:
        # Every window contains every token, and attention does not depend on their order.
        return _attend(queries[:, None], pairs[:, None])[:, 0]
    pairs = _windows(pairs, count, window, shift)
    b, n, *inner = queries.shape
    size = n // count
    whole = queries[:, : count * size].reshape(b, count, size, *inner)
    attended = _attend(whole, pairs).reshape(b, count * size, *inner)
    if n == count * size:
        return attended
    # The tokens beyond count * size belong to the last segment.
    rest = _attend(queries[:, None, count * size :], pairs[:, -1:])[:, 0]
    return jnp.concatenate([attended, rest], axis=1)


def _windows(x: Array, count: int, window: int, shift: Array | int | None) -> Array:
    """Gather the window of each segment: [b m ...] -> [b count window*size ...].

    The windows are slices of a circularly continued copy, so that their gradients are sums of
    slices and not scatters.
    """
    b, m, *inner = x.shape
    size = m // count
    flat = x.reshape(b, m, -1)
    if shift is not None:
        flat = jnp.roll(flat, -shift * size, axis=1)
    circular = jnp.concatenate([flat, flat], axis=1)[:, : (count + window - 1) * size]
    segments = circular.reshape(b, count + window - 1, -1)
    windows = jnp.stack([segments[:, k : k + count] for k in range(window)], axis=2)
    return windows.reshape(b, count, window * size, *inner)


def _attend(queries: Array, pairs: Array) -> Array:
    """Attend from queries [b g n h d] to keys and values [b g m 2 h d]: -> [b g n h d]."""
    return einsum_attention(queries, pairs[..., 0, :, :], pairs[..., 1, :, :])

# SPDX-License-Identifier: Apache-2.0
"""Random-shift attention against a plain loop over the index rule of the paper's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.base_models.random_shift import random_shift_attention

FRAMES, HEADS, DIM = 4, 2, 3
attention = jax.jit(random_shift_attention, static_argnums=(2, 3))


def _softmax_attention(queries, keys, values):
    """[n d], [m d], [m d] -> [n d] in float64."""
    weights = np.exp(queries @ keys.T / np.sqrt(DIM))
    return weights / weights.sum(1, keepdims=True) @ values


def _segments(n, size):
    """Bounds of the query segments; the last takes what remains."""
    return [(i * size, n if i == FRAMES - 1 else (i + 1) * size) for i in range(FRAMES)]


def _loop(own, other, window, shift):
    """own, other [b n 3 h d]: each segment of queries, one head of one sample at a time."""
    n, m = own.shape[1], other.shape[1]
    size, other_size = n // FRAMES, m // FRAMES
    out = np.zeros((own.shape[0], n, HEADS, DIM))
    for i, (start, stop) in enumerate(_segments(n, size)):
        seen = [((i + shift) * other_size + j) % m for j in range(window * other_size)]
        for b in range(own.shape[0]):
            for h in range(HEADS):
                queries = own[b, start:stop, 0, h]
                keys, values = other[b, seen, 1, h], other[b, seen, 2, h]
                out[b, start:stop, h] = _softmax_attention(queries, keys, values)
    return out


def _tokens(pixels, audio_length, batch=2):
    rng = np.random.default_rng(audio_length)
    shapes = [(batch, n, 3, HEADS, DIM) for n in (FRAMES * pixels, audio_length)]
    return [2 * rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("audio_length", [8, 15])
@pytest.mark.parametrize("window", range(1, FRAMES + 1))
def test_every_shift_of_every_window_is_the_loop(window, audio_length):
    video, audio = _tokens(2, audio_length)
    inputs = [jnp.asarray(x, jnp.float32) for x in (video, audio)]
    for shift in range(FRAMES - window + 1):
        got = attention(*inputs, FRAMES, window, jnp.int32(shift))
        want = _loop(video, audio, window, shift), _loop(audio, video, window, shift)
        for mine, loop in zip(got, want, strict=True):
            np.testing.assert_allclose(mine, loop, rtol=1e-5, atol=1e-5)


def test_off_is_shift_0():
    video, audio = (jnp.asarray(x, jnp.float32) for x in _tokens(2, 15))
    off = attention(video, audio, FRAMES, 2)
    for mine, still in zip(off, attention(video, audio, FRAMES, 2, jnp.int32(0)), strict=True):
        np.testing.assert_allclose(mine, still, rtol=1e-6, atol=1e-6)


def test_gradient_reaches_exactly_the_window():
    video, audio = (jnp.asarray(x, jnp.float32) for x in _tokens(2, 15, batch=1))
    window, shift, frame = 2, 1, 3

    @jax.jit
    def gradient(audio, shift):
        def total(audio):
            seen, _ = random_shift_attention(video, audio, FRAMES, window, shift)
            return jnp.square(seen[:, 2 * frame : 2 * frame + 2]).sum()

        return jax.grad(total)(audio)

    reached = np.abs(gradient(audio, jnp.int32(shift))[0, :, 1:]).max((1, 2, 3)) > 0
    # Frame 3, one segment of 15 // 4 = 3 tokens further: 12, 13, 14, and round to 0, 1, 2.
    assert np.flatnonzero(reached).tolist() == [0, 1, 2, 12, 13, 14]


def test_no_mask_over_all_pairs_of_tokens():
    """At the paper's first cross-attention level such a mask would have 100 million entries."""
    rows = jax.ShapeDtypeStruct((1, 16 * 32 * 32, 3, 4, 64), jnp.float32)
    columns = jax.ShapeDtypeStruct((1, 6400, 3, 4, 64), jnp.float32)
    program = jax.make_jaxpr(lambda v, a, s: random_shift_attention(v, a, 16, 1, s))(
        rows, columns, jnp.int32(3)
    )
    sizes = [v.aval.size for e in _equations(program.jaxpr) for v in e.outvars]
    # The scores: each video token meets the 400 audio tokens of its window, in four heads.
    assert max(sizes) == 16 * 1024 * 400 * 4


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_misfits_are_named():
    video, audio = map(jnp.asarray, _tokens(1, 3))
    with pytest.raises(ValueError, match="3 audio tokens cannot form 4 segments"):
        random_shift_attention(video, audio, FRAMES, 1)
    with pytest.raises(ValueError, match="4 video tokens are no multiple of 3 frames"):
        random_shift_attention(video, audio, 3, 1)
    for window in (0, 5):
        with pytest.raises(ValueError, match=f"window of {window} frames does not fit a clip of 4"):
            random_shift_attention(video, audio, FRAMES, window)

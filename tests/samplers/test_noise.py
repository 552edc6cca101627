# SPDX-License-Identifier: Apache-2.0
"""Keyed noise: normal, reproducible, and different in every argument."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.samplers.noise import initial, keyed, sample_keys


def test_noise_differs_by_step_draw_modality_and_sample():
    noise = keyed(sample_keys(0, jnp.arange(2)))
    draws = [
        np.asarray(noise(jnp.int32(step), draw, m, (2, 400)))
        for step in (0, 1)
        for draw in (0, 1)
        for m in ("audio", "video")
    ]
    draws.append(np.asarray(initial(sample_keys(0, jnp.arange(2)), {"audio": (400,)})["audio"]))
    rows = np.concatenate(draws)  # every array and both samples
    correlation = np.corrcoef(rows)
    off_diagonal = [abs(correlation[i, j]) for i, j in itertools.combinations(range(len(rows)), 2)]
    assert max(off_diagonal) < 0.25  # five standard errors of 1 / sqrt(400)
    assert abs(rows.mean()) < 0.05 and abs(rows.std() - 1) < 0.05


def test_a_sample_s_noise_depends_on_its_index_alone():
    many = keyed(sample_keys(7, jnp.arange(5)))(jnp.int32(3), 1, "audio", (5, 4))
    alone = keyed(sample_keys(7, jnp.array([3])))(jnp.int32(3), 1, "audio", (1, 4))
    assert np.array_equal(many[3], alone[0])


def test_step_and_draw_may_be_traced():
    noise = keyed(sample_keys(0, jnp.arange(2)))
    traced = jax.jit(lambda step, draw: noise(step, draw, "video", (2, 3)))(5, 3)
    assert np.array_equal(traced, noise(jnp.int32(5), 3, "video", (2, 3)))

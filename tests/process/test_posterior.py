# SPDX-License-Identifier: Apache-2.0
"""The posterior of a step back against Bayes' rule for Gaussians."""

import numpy as np

from mmdisco_jax.process.posterior import posterior
from mmdisco_jax.process.schedules import linear


def test_it_is_the_product_of_the_step_and_the_prior():
    """p(x_s | x_0) = N(sqrt(abar_s) x_0, 1 - abar_s), p(x_t | x_s) = N(sqrt(a) x_s, 1 - a)."""
    abar = linear().abar[[2, 40, 900]]
    after = linear().abar[[1, 10, 700]]
    step = abar / after
    precision = 1 / (1 - after) + step / (1 - step)
    q = posterior(abar, after)
    np.testing.assert_allclose(q.small, 1 / precision, rtol=1e-9)
    np.testing.assert_allclose(q.from_x0, np.sqrt(after) / (1 - after) / precision, rtol=1e-9)
    np.testing.assert_allclose(q.from_x, np.sqrt(step) / (1 - step) / precision, rtol=1e-9)
    np.testing.assert_allclose(q.large, 1 - step, rtol=1e-12)
    clean = posterior(abar, np.ones(3))
    assert clean.from_x0.tolist() == [1, 1, 1] and not clean.from_x.any() and not clean.small.any()

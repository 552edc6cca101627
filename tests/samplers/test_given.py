# SPDX-License-Identifier: Apache-2.0
"""Zero-shot conditions on a correlated Gaussian, whose conditional mean is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.dpm_solver import DPMSolver
from mmdisco_jax.samplers.levels import levels
from mmdisco_jax.samplers.sampler import Sampler
from tests.support.gaussian_pair import JointGaussian

WORLD = JointGaussian(0.8, (0.5, -1.0), (1.0, 0.4))
SCHEDULES = WORLD.by_modality
JOINT = joint(WORLD.marginals, WORLD.log_ratio, SCHEDULES, {m: 1.0 for m in SCHEDULES})
PATH = levels(SCHEDULES, 100)
SHAPES = {m: (1,) for m in SCHEDULES}


def _run(given, seed, indices, weight=0.0, stepper=None, **options):
    """Samples of both modalities, each scalars [b 1]; the given one's noise is its x_T."""
    sampler = Sampler({m: stepper or DDPM() for m in SCHEDULES}, SCHEDULES, PATH)
    return sampler.run(
        JOINT, SHAPES, seed=seed, indices=indices, given=given, given_weight=weight, **options
    )


def _response(name, weight=0.0):
    """Slope of the other modality on the given one, in units of the exact conditional mean's."""
    other = next(m for m in SCHEDULES if m != name)
    index = list(SCHEDULES).index(name)
    deviation = jax.random.normal(jax.random.key(9), (4000, 1))
    given = {name: WORLD.means[index] + WORLD.stds[index] * deviation}
    out = np.asarray(_run(given, 3, range(4000), weight)[other])
    slope = np.polyfit(np.asarray(deviation).ravel(), out.ravel(), 1)[0]
    return slope / (0.8 * WORLD.stds[1 - index])


@pytest.mark.parametrize(("name", "weights"), [("audio", (0.0, 4.0)), ("video", (0.0, 5.0, 15.0))])
def test_both_methods_move_towards_the_conditional_mean_and_weight_moves_more(name, weights):
    """0 would be no influence and 1 the exact mean's; standard error 0.02, the noise is common."""
    responses = [_response(name, weight) for weight in weights]
    assert responses[0] > 0.2
    for less, more in itertools.pairwise(responses):
        assert more > less + 0.03
        assert abs(1 - more) < abs(1 - less)


def test_a_sample_depends_on_its_own_condition_alone_and_keeps_it():
    """And the official half-precision scale, which is not divided out, multiplies the weight."""

    def run(indices, **strength):
        indices = jnp.asarray(indices)
        given = {"video": 0.1 * indices[:, None].astype(jnp.float32)}
        return _run(given, 4, indices, **strength)

    batch = run([0, 1, 2], weight=3.0)
    alone = run([2], weight=3.0 / 2**20, loss_scale=2.0**20)
    for m in SCHEDULES:
        np.testing.assert_allclose(batch[m][2], alone[m][0], rtol=1e-5, atol=1e-5)
    # At level 9 of the schedule, where the last step begins, there is 0.05 of noise.
    assert np.abs(batch["video"][:, 0] - np.array([0, 0.1, 0.2])).max() < 0.2


def test_replacement_works_with_a_single_step_solver_and_the_gradient_says_why_not():
    numbers, given = range(8), {"audio": jnp.full((8, 1), 3.0)}
    high = _run(given, 4, numbers, stepper=DPMSolver())["video"]
    low = _run({"audio": -given["audio"]}, 4, numbers, stepper=DPMSolver())["video"]
    assert (high > low + 0.3).all()
    with pytest.raises(ValueError, match="take a step in several rows"):
        _run(given, 4, numbers, weight=1.0, stepper=DPMSolver())


_ONE = np.zeros((2, 1), np.float32)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "give at least one of .* but not all"),
        ({m: _ONE for m in SCHEDULES}, {}, "but not all"),
        ({"text": _ONE}, {}, r"given are \['text'\]"),
        (
            {"audio": np.zeros((2, 3))},
            {},
            r"audio has shape \(2, 3\), but .* \(2, 1\)",
        ),
        ({"audio": _ONE}, {"given_weight": -1.0}, "weight must be 0"),
        ({"audio": _ONE}, {"num_substeps": 2}, "not repeated, got 2"),
    ],
)
def test_impossible_conditions_are_refused(given, options, message):
    options = dict(options)
    substeps = options.pop("num_substeps", 1)
    sampler = Sampler({m: DDPM() for m in SCHEDULES}, SCHEDULES, PATH, substeps)
    with pytest.raises(ValueError, match=message):
        sampler.run(JOINT, SHAPES, indices=range(2), given=given, **options)

# SPDX-License-Identifier: Apache-2.0
"""Any names, and more than two modalities: a Gaussian of three, from loss to guided samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.discriminator.levels import measure_levels
from mmdisco_jax.discriminator.losses import mismatched_fakes
from mmdisco_jax.discriminator.objective import ObjectiveSpec, Problem, objective
from mmdisco_jax.guidance.joint import joint, residual
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.schedules import cosine, linear, scaled_linear
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.dpm_solver import DPMSolverPP2M
from mmdisco_jax.samplers.levels import levels
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.types import Clock, LatentFormat

NAMES = ("music", "dance", "depth")
SCHEDULES = {
    "music": linear(),
    "dance": scaled_linear(1000, 0.00085, 0.012),
    "depth": cosine(1000),
}
COVARIANCE = np.array([[1.0, 0.6, 0.3], [0.6, 0.8, -0.2], [0.3, -0.2, 0.5]])
VARIANCE = dict(zip(NAMES, np.diag(COVARIANCE), strict=True))


def bases(x, t, cond=None):
    """Exact noise of each modality on its own."""
    out = {}
    for m, v in x.items():
        alpha, sigma = SCHEDULES[m].alpha(t)[:, None], SCHEDULES[m].sigma(t)[:, None]
        out[m] = sigma * v / (alpha**2 * VARIANCE[m] + sigma**2)
    return out


def log_ratio(x, t, cond=None):
    """log q(music, dance, depth) - log of the product of the marginals, but for a constant."""
    z = jnp.concatenate([x[m] for m in NAMES], axis=1)
    alpha = jnp.stack([SCHEDULES[m].alpha(t) for m in NAMES], axis=1)
    sigma = jnp.stack([SCHEDULES[m].sigma(t) for m in NAMES], axis=1)
    noise = jax.vmap(jnp.diag)(sigma**2)
    whole = alpha[:, :, None] * COVARIANCE * alpha[:, None, :] + noise
    apart = jnp.diagonal(whole, axis1=1, axis2=2)
    together = jnp.einsum("bi,bi->b", z, jnp.linalg.solve(whole, z[..., None])[..., 0])
    return 0.5 * ((z**2 / apart).sum(1) - together)


@pytest.mark.parametrize("stepper", [DDIM(), DPMSolverPP2M()])
def test_guided_samples_have_the_covariance_of_all_three(stepper):
    guided = joint(bases, log_ratio, SCHEDULES, dict.fromkeys(NAMES, 1.0))
    sampler = Sampler(dict.fromkeys(NAMES, stepper), SCHEDULES, levels(SCHEDULES, 100, "logsnr"))
    x = sampler.run(guided, dict.fromkeys(NAMES, (1,)), seed=0, indices=range(8000))
    got = np.cov(np.concatenate([x[m] for m in NAMES], axis=1).T)
    np.testing.assert_allclose(got, COVARIANCE, atol=0.05)


def test_two_are_sampled_to_a_third_that_is_given():
    guided = joint(bases, log_ratio, SCHEDULES, {"music": 1.0, "depth": 1.0})
    sampler = Sampler(dict.fromkeys(NAMES, DDIM()), SCHEDULES, levels(SCHEDULES, 50))
    given = {"dance": jnp.full((500, 1), 1.5)}
    shapes = dict.fromkeys(NAMES, (1,))
    x = sampler.run(guided, shapes, indices=range(500), given=given)
    # Replacement is approximate; the signs of both correlations are not.
    assert np.mean(x["music"]) > 0.5 and np.mean(x["depth"]) < -0.1


def test_no_two_modalities_of_a_fake_come_of_one_sample():
    numbers = {m: jnp.arange(10.0)[:, None] for m in NAMES}
    fakes = mismatched_fakes(numbers, groups=2, shifts=2)
    rows = np.concatenate([fakes[m] for m in NAMES], axis=1)
    assert rows.shape == (20, 3)
    for row in rows:
        assert len(set(row)) == 3 and len(set(row // 5)) == 1
    with pytest.raises(ValueError, match=r"in 2 groups by 1\.\.6"):
        mismatched_fakes(numbers, groups=2, shifts=3)
    pair = {m: numbers[m] for m in ("music", "dance")}
    one = mismatched_fakes(pair, groups=1, shifts=1)
    assert list(one["dance"][:3, 0]) == [9, 0, 1] and list(one["music"][:3, 0]) == [0, 1, 2]


@pytest.mark.parametrize(("names", "fakes"), [(NAMES, "both"), (("song", "lyrics"), "mismatched")])
def test_a_discriminator_of_any_names_learns_and_guides(names, fakes):
    shapes = {m: (4, 3, 2)[: 2 + i % 2] + (1,) * (i % 2) for i, m in enumerate(names)}
    formats = {m: LatentFormat(shape=s, clock=Clock(first=0, step=1)) for m, s in shapes.items()}
    towers = {m: {"patch": (1,) * (len(s) - 1), "patch_width": 4} for m, s in shapes.items()}
    settings = {"width": 8, "tower_depth": 1, "fusion_depth": 1, "num_heads": 2, "taps": 3}
    make = DISCRIMINATORS.get("aligned")
    model = make(formats, rngs=param_keys(0), towers=towers, **settings)
    schedules = {m: linear() for m in names}
    keys = jax.random.split(jax.random.key(0), len(names))
    x0 = {m: jax.random.normal(k, (8, *shapes[m])) for m, k in zip(names, keys, strict=True)}
    problem = Problem(
        schedules=schedules,
        time_sampler=TimeSampler(num_timesteps=1000),
        denoise=lambda x, t, cond: x,
        residual=lambda h: residual(h, schedules),
    )
    spec = ObjectiveSpec(groups=2, shifts=1, fakes=fakes, denoising_samples=2, denoising_from=0)
    made = None if fakes == "mismatched" else x0
    run = jax.jit(lambda key: objective(model, x0, made, key, jnp.int32(5), problem, spec))
    loss, metrics = run(jax.random.key(1))
    assert np.isfinite(loss) and {f"denoising_{m}" for m in names} <= set(metrics)
    with pytest.raises(ValueError, match=r"towers of \['other'"):
        make(formats, rngs=param_keys(0), towers={"other": towers[names[0]]}, **settings)


def test_a_discriminator_of_three_is_measured_level_by_level():
    factor = jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)
    clean = jax.random.normal(jax.random.key(0), (4096, 3)) @ factor.T
    x0 = {m: clean[:, i : i + 1] for i, m in enumerate(NAMES)}
    (row,) = measure_levels(
        log_ratio, bases, lambda h: residual(h, SCHEDULES), SCHEDULES, x0, (200,),
        seed=0, batch_size=1024,
    )  # fmt: skip
    for m in NAMES:
        assert row[f"best_scale_{m}"] == pytest.approx(1, abs=0.15) and row[f"gain_{m}"] < 0


def test_fusions_of_two_say_so():
    formats = {m: LatentFormat(shape=(4, 2), clock=Clock(first=0, step=1)) for m in NAMES}
    towers = {m: {"patch": (1,), "patch_width": 4} for m in NAMES}
    settings = {"width": 8, "tower_depth": 1, "fusion_depth": 1, "num_heads": 2, "towers": towers}
    with pytest.raises(ValueError, match=r"joins two modalities.*fusion='products'"):
        DISCRIMINATORS.get("aligned")(
            formats, rngs=param_keys(0), fusion="aggregate_time_and_cat_ch", **settings
        )
    with pytest.raises(ValueError, match=r"one sound .* with one video .*use 'aligned'"):
        DISCRIMINATORS.get("official")(formats, rngs=param_keys(0), fusion={})

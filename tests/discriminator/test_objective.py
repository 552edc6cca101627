# SPDX-License-Identifier: Apache-2.0
"""The discriminator's losses and its training objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.discriminator import losses
from mmdisco_jax.discriminator.objective import ObjectiveSpec, Problem, Texts, objective
from mmdisco_jax.guidance.joint import residual
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.schedules import linear

SPEC = {
    "groups": 2,
    "shifts": 2,
    "fakes": "mismatched",
    "ce_weight": 1.0,
    "denoising_weight": 1.0,
    "denoising_samples": 2,
    "denoising_from": 0,
    "level_start": 1.0,
    "level_warmup_steps": 0,
}
SHAPES = {"audio": (8, 4, 1), "video": (4, 8, 8, 3)}


class _Bilinear(nnx.Module):
    """The smallest log-ratio with towers apart: products of linear features, scaled by level."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        sizes = {m: int(np.prod(shape)) for m, shape in SHAPES.items()}
        self.towers = nnx.Dict({m: nnx.Linear(n, width, rngs=rngs) for m, n in sizes.items()})

    def features(self, x, t):
        level = 1 + t[:, None] / 1000
        return {m: self.towers[m](v.reshape(len(v), -1)) / level for m, v in x.items()}

    def fuse(self, features, t):
        del t
        return (features["audio"] * features["video"]).mean(-1)

    def __call__(self, x, t, cond=None):
        return self.fuse(self.features(x, t), t)


def _pair(batch: int, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed))
    return {m: jax.random.normal(k, (batch, *SHAPES[m])) for m, k in zip(SHAPES, keys, strict=True)}


def test_cross_entropy_of_known_logits():
    np.testing.assert_allclose(losses.cross_entropy(jnp.zeros(3), jnp.zeros(5)), np.log(2))
    right = losses.cross_entropy(jnp.array([100.0]), jnp.array([-100.0]))
    wrong = losses.cross_entropy(jnp.array([-100.0]), jnp.array([100.0]))
    np.testing.assert_allclose([right, wrong], [0.0, 100.0], atol=1e-6)


def test_denoising_is_least_at_what_the_base_misses():
    eps, base = _pair(3, 1), _pair(3, 2)
    missing = jax.tree.map(jnp.subtract, eps, base)
    best, gain = losses.denoising(missing, eps, base)
    power = {m: float(jnp.square(missing[m]).sum() / 3) for m in missing}
    np.testing.assert_allclose(best, -sum(power.values()), rtol=1e-5)
    np.testing.assert_allclose(gain["audio"], -power["audio"], rtol=1e-5)
    nothing, _ = losses.denoising(jax.tree.map(jnp.zeros_like, eps), eps, base)
    assert float(nothing) == 0.0
    half = jax.tree.map(lambda x: x / 2, missing)
    np.testing.assert_allclose(losses.best_scale(half, eps, base)["video"], 2.0, rtol=1e-5)


def test_mismatching_never_leaves_a_real_pair_and_stays_in_its_group():
    x = jnp.arange(12.0)[:, None]
    fake = np.asarray(losses.mismatched(x, groups=3, shifts=3))[:, 0].reshape(3, 12)
    for row in fake:
        assert not np.any(row == np.arange(12))
        assert np.array_equal(row // 4, np.arange(12) // 4)
    assert len({tuple(column) for column in fake.T}) == 12
    with pytest.raises(ValueError, match=r"12 samples in 3 groups by 1\.\.4"):
        losses.mismatched(x, groups=3, shifts=4)


def _objective(params, base, graphdef, **change):
    schedules = {m: linear() for m in SHAPES}
    problem = Problem(
        schedules=schedules,
        time_sampler=TimeSampler(num_timesteps=1000),
        denoise=lambda x, t, cond: jax.tree.map(lambda a: base * a, x),
        residual=lambda h: residual(h, schedules),
    )
    spec = ObjectiveSpec(**{**SPEC, **change})
    generated = None if spec.fakes == "mismatched" else _pair(5, 7)
    merged = nnx.merge(graphdef, params)
    return objective(merged, _pair(6), generated, jax.random.key(3), jnp.int32(0), problem, spec)


def test_the_objective_has_finite_gradients_and_spares_the_bases():
    graphdef, params = nnx.split(_Bilinear(8, param_keys(0)))

    def loss(params, base):
        return _objective(params, base, graphdef, fakes="both")

    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, metrics), grads = grad(params, jnp.float32(0.5))
    assert np.isfinite(value)
    np.testing.assert_allclose(value, metrics["ce"] + metrics["denoising"], rtol=1e-5)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads[0]))
    assert float(grads[1]) == 0.0  # no gradient flows into the base models


class _SamePair(nnx.Module):
    """Sure that a pair is real if sound and picture have the same mean, and that it is not else."""

    def __call__(self, x, t, cond=None):
        audio, video = (v.reshape(len(v), -1).mean(-1) for v in (x["audio"], x["video"]))
        return jnp.where(jnp.abs(audio - video) < 1.0, 50.0, -50.0)


@pytest.mark.parametrize(("fakes", "together"), [("generated", False), ("generated_pairs", True)])
def test_pairs_of_a_joint_model_stay_together(fakes, together):
    """Clip i of sound and of picture is 10 i everywhere; noise of level 0 changes it by .01."""
    schedules = {m: linear() for m in SHAPES}
    clips = {m: jnp.full((64, *SHAPES[m]), 10.0) for m in SHAPES}
    clips = jax.tree.map(lambda x: x * jnp.arange(64.0).reshape(-1, *[1] * (x.ndim - 1)), clips)
    problem = Problem(
        schedules=schedules,
        time_sampler=TimeSampler(num_timesteps=1000, focus=1.0, low=0, high=1),
        denoise=lambda x, t, cond: x,
        residual=lambda h: residual(h, schedules),
    )
    spec = ObjectiveSpec(**{**SPEC, "fakes": fakes, "denoising_weight": 0.0})
    args = (jax.random.key(0), jnp.int32(0), problem, spec)
    value, _ = objective(_SamePair(), jax.tree.map(lambda x: x[:16], clips), clips, *args)
    # Every real pair is right; a fake that stayed together deceives, one that did not does not.
    assert (float(value) > 20.0) == together


def test_each_kind_of_fake_is_scored():
    graphdef, params = nnx.split(_Bilinear(8, param_keys(0)))
    ce = {}
    for fakes in ("mismatched", "generated", "both"):

        @jax.jit
        def score(params, fakes=fakes):
            change = {"fakes": fakes, "denoising_weight": 0.0}
            return _objective(params, jnp.float32(0.5), graphdef, **change)

        value, metrics = score(params)
        np.testing.assert_allclose(value, metrics["ce"], rtol=1e-6)
        ce[fakes] = float(value)
    # Two mismatched fakes and one generated: "both" averages the three.
    assert min(ce["mismatched"], ce["generated"]) <= ce["both"] + 1e-6
    assert ce["both"] <= max(ce["mismatched"], ce["generated"]) + 1e-6
    assert len(set(ce.values())) == 3


@pytest.mark.parametrize("fakes", ["mismatched", "generated", "both"])
def test_fakes_of_different_texts_are_refused(fakes):
    """With cross-entropy: the denoising term alone looks at real pairs only."""
    schedules = {m: linear() for m in SHAPES}
    problem = Problem(
        schedules=schedules,
        time_sampler=TimeSampler(num_timesteps=1000),
        denoise=lambda x, t, cond: x,
        residual=lambda h: residual(h, schedules),
    )
    spec = ObjectiveSpec(**{**SPEC, "fakes": fakes})
    text = {m: jnp.zeros((8, 4)) for m in SHAPES}
    texts = Texts(real=text, generated=None, none={m: x[:1] for m, x in text.items()})
    with pytest.raises(ValueError, match=f"'{fakes}' pair sounds and pictures of different texts"):
        args = (None, jax.random.key(0), jnp.int32(0), problem, spec, texts)
        objective(_SamePair(), _pair(6), *args)


def test_bad_objectives_are_named():
    for change, said in (
        ({"fakes": "none"}, "unknown fakes 'none'"),
        ({"fakes": "repaired"}, 'now called "mismatched"'),
        ({"ce_weight": 0.0, "denoising_weight": 0.0}, "not both 0"),
        ({"level_start": 0.0}, "level_start"),
        ({"ce_weight": 0.0, "denoising_from": 300}, "denoising_from=300: set it to 0"),
    ):
        with pytest.raises(ValueError, match=said):
            ObjectiveSpec(**{**SPEC, **change})

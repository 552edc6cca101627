# SPDX-License-Identifier: Apache-2.0
"""Contract of discriminators: made from latent formats, one logit a pair, pairs do not mix."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.base_models.api import made
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.nn.init import param_keys, skeleton
from mmdisco_jax.types import Clock, LatentFormat

CLOCK = Clock(first=0.0, step=0.1)
OUTSIDE = "tests.support.outside.discriminator:build"
ALIGNED = {"width": 8, "tower_depth": 1, "fusion_depth": 1, "num_heads": 2, "taps": 3}
OFFICIAL = {
    "name": "official",
    "model_channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "num_groups": 2,
    "emb_dim": 8,
    "fusion": {"kind": "aggregate_time_and_cat_ch"},
}
TOWERS = {
    "audio": {"patch": (2, 4), "patch_width": 4},
    "video": {"patch": (1, 4, 4), "patch_width": 4},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "aligned": {"name": "aligned", "towers": TOWERS, **ALIGNED},
    "aligned_on_bases": {"name": "aligned_on_bases", **ALIGNED},
    "official": OFFICIAL,
    "official, with text": OFFICIAL,
    OUTSIDE: {"name": OUTSIDE},
}
WIDTH = 5  # of the features


class Features:
    """A base model that shows means of what it sees."""

    def features(self, x_t, t):
        mean = x_t.mean(tuple(range(2, x_t.ndim)))[..., None]
        return jnp.sin(mean * jnp.arange(1, WIDTH + 1) + t[:, None, None] / 1000)


def formats(name: str) -> dict[str, LatentFormat]:
    texts = {"audio": (6,), "video": (3, 7)} if "text" in name else {}
    shapes = {"audio": (8, 4, 2), "video": (4, 8, 8, 3)}
    return {
        m: LatentFormat(shape=s, clock=CLOCK, text_shape=texts.get(m, ()), feature_width=WIDTH)
        for m, s in shapes.items()
    }


@functools.cache
def parts(name: str) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition, and random parameters none of which is zero."""
    graphdef, abstract = skeleton(
        functools.partial(made, DISCRIMINATORS, SETTINGS[name], formats(name))
    )
    rng = np.random.default_rng(0)
    return graphdef, jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape)), abstract)


@functools.partial(jax.jit, static_argnums=0)
def logits(name: str, params: Any, x: Any, t: jax.Array, cond: Any) -> tuple[jax.Array, Any]:
    """Logits [b], and the gradient of their sum."""

    def summed(x):
        network = nnx.merge(parts(name)[0], params)
        if hasattr(network, "on_bases"):
            network = network.on_bases(dict.fromkeys(x, Features()))
        logit = network(x, t, cond)
        return logit.sum(), logit

    (_, logit), gradient = jax.value_and_grad(summed, has_aux=True)(x)
    return logit, gradient


def inputs(name: str, batch: int = 3) -> tuple[Any, jax.Array, Any]:
    rng, known = np.random.default_rng(1), formats(name)
    x = {m: jnp.asarray(rng.normal(size=(batch, *f.shape)), jnp.float32) for m, f in known.items()}
    text = (
        {m: jnp.ones((batch, *f.text_shape)) for m, f in known.items()} if "text" in name else None
    )
    return x, jnp.array([50, 400, 900]), text


def test_every_registered_discriminator_is_tested_here():
    named = {one["name"] for one in SETTINGS.values()}
    assert {name for name in named if ":" not in name} == set(DISCRIMINATORS.names())


@pytest.mark.parametrize("name", SETTINGS)
def test_one_logit_a_pair_with_a_finite_gradient_and_no_mixing(name):
    x, t, cond = inputs(name)
    logit, gradient = logits(name, parts(name)[1], x, t, cond)
    assert logit.shape == (3,) and np.isfinite(logit).all()
    for m, g in gradient.items():
        assert g.shape == x[m].shape and np.isfinite(g).all()
        assert (np.abs(g).reshape(3, -1).max(1) > 0).all()
    other = {m: v.at[1].set(-v[1]) for m, v in x.items()}
    changed, changed_gradient = logits(name, parts(name)[1], other, t, cond)
    rest = np.array([0, 2])
    np.testing.assert_allclose(changed[rest], logit[rest], rtol=1e-5, atol=1e-6)
    for m, g in gradient.items():
        scale = float(jnp.abs(g).max())
        np.testing.assert_allclose(changed_gradient[m][rest], g[rest], atol=1e-5 * scale)
    assert changed[1] != logit[1]


def test_the_same_key_makes_the_same_parameters():
    def params(seed: int) -> Any:
        network = made(DISCRIMINATORS, SETTINGS[OUTSIDE], formats(OUTSIDE), rngs=param_keys(seed))
        return jax.tree.leaves(nnx.split(network)[1])

    for one, same, other in zip(params(0), params(0), params(1), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not one.any() or (one != other).any()


@pytest.mark.parametrize("name", SETTINGS)
def test_unknown_settings_are_named(name):
    settings = {**SETTINGS[name], "nonsense": 1}
    with pytest.raises(ValueError, match="nonsense"):
        made(DISCRIMINATORS, settings, formats(name), rngs=param_keys(0))


def test_features_are_asked_of_bases_that_offer_some():
    plain = {m: LatentFormat(shape=f.shape, clock=CLOCK) for m, f in formats("").items()}
    with pytest.raises(ValueError, match="audio, video offer no features"):
        made(DISCRIMINATORS, SETTINGS["aligned_on_bases"], plain, rngs=param_keys(0))

# SPDX-License-Identifier: Apache-2.0
"""The time-aligned discriminator: own towers or the bases' features, and every way to join them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.discriminator.aligned import AlignedSpec
from mmdisco_jax.discriminator.aligned_fusion import FUSION_HEADS
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.schedules import linear
from tests.support.randoms import random_module

SHAPES = {"audio": (8, 4, 1), "video": (4, 8, 8, 3)}
PATCHES = {
    "audio": {"sample_shape": SHAPES["audio"], "patch": (1, 4)},
    "video": {"sample_shape": SHAPES["video"], "patch": (1, 4, 4)},
}
SIZES = {
    **{"num_moments": 4, "width": 16, "tower_depth": 1, "fusion_depth": 1},
    **{"num_heads": 2, "taps": 3},
}
WIDTHS = {"audio": 12, "video": 16}


def _bases():
    make = BASE_MODELS.get("patch_transformer")
    rest = {"depth": 1, "num_heads": 2, "taps": 3}
    patch_widths = {"audio": 0, "video": 8}
    return {
        m: make(
            linear(),
            rngs=param_keys(0),
            width=WIDTHS[m],
            patch_width=patch_widths[m],
            **PATCHES[m],
            **rest,
        )
        for m in SHAPES
    }


def _model(kind: str, fusion: str):
    """A pair model (x_t, t) -> logit."""
    if kind == "aligned":
        towers = {m: {**PATCHES[m], "patch_width": 8} for m in SHAPES}
        make = DISCRIMINATORS.get("aligned")
        return random_module(
            lambda: make(rngs=param_keys(0), towers=towers, fusion=fusion, **SIZES)
        )
    make = DISCRIMINATORS.get("aligned_on_bases")
    model = random_module(
        lambda: make(rngs=param_keys(0), in_features=WIDTHS, fusion=fusion, **SIZES)
    )
    return model.on_bases({m: random_module(lambda m=m: _bases()[m]) for m in SHAPES})


def _pair(batch: int):
    keys = jax.random.split(jax.random.key(0))
    return {m: jax.random.normal(k, (batch, *SHAPES[m])) for m, k in zip(SHAPES, keys, strict=True)}


_SOON = ("products", "interp_time_and_cat_ch_and_apply_transformer")  # what the others have, too
CASES = [
    ("aligned", "products"),
    *(
        pytest.param("aligned_on_bases", fusion, marks=() if fusion in _SOON else pytest.mark.slow)
        for fusion in FUSION_HEADS
    ),
]


@pytest.mark.parametrize(("kind", "fusion"), CASES)
def test_the_network_does_not_mix_samples_and_sees_both_sides(kind, fusion):
    x, t = _pair(3), jnp.array([5, 300, 900])

    model = _model(kind, fusion)

    def second(x):
        logits = model(x, t)
        return logits[1], logits

    (_, logits), grads = jax.jit(jax.value_and_grad(second, has_aux=True))(x)
    assert logits.shape == (3,)
    assert np.all(np.isfinite(logits))
    for g in grads.values():
        assert float(jnp.abs(g[1]).max()) > 0
        np.testing.assert_array_equal(g[0], 0.0)
        np.testing.assert_array_equal(g[2], 0.0)


def test_moments_of_sound_and_picture_meet_where_they_are():
    # The product term alone: exchanging two moments of both sides changes nothing, of one it does.
    spec = AlignedSpec(num_moments=4, width=8, tower_depth=1, fusion_depth=1, num_heads=2)
    head = random_module(lambda: FUSION_HEADS["products"](spec, rngs=param_keys(0)))
    head.last_linear.kernel[...] = jnp.zeros_like(head.last_linear.kernel[...])
    keys = jax.random.split(jax.random.key(1))
    audio, video = (jax.random.normal(k, (1, 4, 8)) for k in keys)
    swapped, t = jnp.array([1, 0, 2, 3]), jnp.array([100])
    both = head(audio[:, swapped], video[:, swapped], t)
    np.testing.assert_allclose(both, head(audio, video, t), rtol=1e-4, atol=1e-5)
    assert abs(float((head(audio[:, swapped], video, t) - both)[0])) > 1e-2


def test_an_unknown_fusion_is_named():
    with pytest.raises(ValueError, match="unknown fusion 'sum': choose one of products"):
        _model("aligned", "sum")

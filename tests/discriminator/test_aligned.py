# SPDX-License-Identifier: Apache-2.0
"""The time-aligned discriminator: own towers or the bases' features, and every way to join them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.base_models.patch_transformer import PatchTransformer, PatchTransformerSpec
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.discriminator.aligned import AlignedSpec
from mmdisco_jax.discriminator.aligned_fusion import FUSION_HEADS
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.types import Clock, LatentFormat
from tests.support.randoms import random_module

SHAPES = {"audio": (8, 4, 1), "video": (4, 8, 8, 3)}
PATCHES = {"audio": (1, 4), "video": (1, 4, 4)}
SIZES = {
    **{"num_moments": 4, "width": 16, "tower_depth": 1, "fusion_depth": 1},
    **{"num_heads": 2, "taps": 3},
}
WIDTHS = {"audio": 12, "video": 16}


FORMATS = {
    m: LatentFormat(shape=SHAPES[m], clock=Clock(first=0.0, step=0.1), feature_width=WIDTHS[m])
    for m in SHAPES
}


def _base(m: str) -> PatchTransformer:
    spec = PatchTransformerSpec(
        sample_shape=SHAPES[m],
        patch=PATCHES[m],
        patch_width={"audio": 0, "video": 8}[m],
        width=WIDTHS[m],
        depth=1,
        num_heads=2,
        taps=3,
    )
    return PatchTransformer(spec, linear(), rngs=param_keys(0))


def _model(kind: str, fusion: str):
    """A pair model (x_t, t) -> logit."""
    make = DISCRIMINATORS.get(kind)
    if kind == "aligned":
        towers = {m: {"patch": PATCHES[m], "patch_width": 8} for m in SHAPES}
        return random_module(
            lambda: make(FORMATS, rngs=param_keys(0), towers=towers, fusion=fusion, **SIZES)
        )
    model = random_module(lambda: make(FORMATS, rngs=param_keys(0), fusion=fusion, **SIZES))
    return model.on_bases({m: random_module(lambda m=m: _base(m)) for m in SHAPES})


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


def test_a_base_without_features_is_named():
    formats = FORMATS | {"audio": LatentFormat(shape=(8, 4, 1), clock=FORMATS["audio"].clock)}
    make = DISCRIMINATORS.get("aligned_on_bases")
    with pytest.raises(ValueError, match="base models of audio offer no features"):
        make(formats, rngs=param_keys(0), **SIZES)


def test_moments_are_the_frames_of_the_modality_that_has_fewest():
    make = DISCRIMINATORS.get("aligned_on_bases")
    sizes = {name: size for name, size in SIZES.items() if name != "num_moments"}
    model = random_module(lambda: make(FORMATS, rngs=param_keys(0), **sizes))
    on_bases = model.on_bases({m: random_module(lambda m=m: _base(m)) for m in SHAPES})
    seen = jax.eval_shape(lambda x: on_bases.features(x, jnp.array([5, 300])), _pair(2))
    assert {m: v.shape[1] for m, v in seen.items()} == dict.fromkeys(SHAPES, 4)

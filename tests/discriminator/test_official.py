# SPDX-License-Identifier: Apache-2.0
"""The official discriminator beyond the golden files: derivatives, batches, small widths, errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.discriminator.fusion import FUSIONS, FusionSpec, nearest
from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec

NARROW = OfficialDiscriminatorSpec(
    video_channels=3,
    audio_channels=1,
    model_channels=4,
    num_groups=2,
    num_res_blocks=1,
    channel_mult=(1, 2),
    emb_dim=8,
)


def _narrow(kind: str, **changes) -> OfficialDiscriminatorSpec:
    fusion = FusionSpec(
        kind=kind, num_layers=1, channels=8, out_channels=4, num_heads=2, head_dim=4
    )
    return dataclasses.replace(NARROW, fusion=fusion, **changes)


def _random(spec: OfficialDiscriminatorSpec) -> OfficialDiscriminator:
    """A network without the zero layers of initialisation, which would hide most of it."""
    graphdef, params = nnx.split(OfficialDiscriminator(spec, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return nnx.merge(graphdef, jax.tree.unflatten(tree, noisy))


def _inputs(audio_shape: tuple[int, ...] = (6, 4, 1)):
    video = jax.random.normal(jax.random.key(2), (2, 4, 4, 4, 3))
    audio = jax.random.normal(jax.random.key(3), (2, *audio_shape))
    return video, audio, jnp.array([3, 700])


@pytest.mark.parametrize("kind", FUSIONS)
def test_narrow_network_is_twice_differentiable_and_batch_independent(kind: str):
    graphdef, params = nnx.split(_random(_narrow(kind)))
    video, audio, t = _inputs()

    @jax.jit
    def logit(params, video, audio, t):
        return nnx.merge(graphdef, params)(video, audio, t)

    whole = logit(params, video, audio, t)
    alone = jnp.concatenate([logit(params, video[i : i + 1], audio[i : i + 1], t[i : i + 1])
                             for i in range(2)])  # fmt: skip
    np.testing.assert_allclose(whole, alone, rtol=2e-5, atol=2e-5)

    @jax.jit
    def gradient_norm(params):  # of the kind the denoising loss has: a function of dh/dx
        def total(pair):
            return logit(params, *pair, t).sum()

        return sum(jnp.square(g).sum() for g in jax.tree.leaves(jax.grad(total)((video, audio))))

    # The directional derivative in all parameters at once against a central difference.
    gradient = jax.jit(jax.grad(gradient_norm))(params)
    direction = jax.tree.map(lambda g: g / 10, gradient)
    scale = sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)) ** 0.5
    step = 1e-2 / scale

    def moved(sign: int):
        return gradient_norm(jax.tree.map(lambda p, g: p + sign * step * g, params, direction))

    slope = (moved(1) - moved(-1)) / (2 * step)
    expected = sum(
        jnp.vdot(g, d)
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    assert float(slope) == pytest.approx(float(expected), rel=2e-2)


def test_waveform_tower_dilates_by_block():
    spec = dataclasses.replace(
        NARROW, audio_conv="1d", num_res_blocks=2, channel_mult=(1, 2, 4), dilation_period=10
    )
    network = OfficialDiscriminator(spec, rngs=nnx.Rngs(0))
    dilations = [
        block[0].audio_in_layers[2].audio_conv.dilation
        for block in list(network.feature_extractor.input_blocks)[1:]
    ]
    assert dilations == [2, 4, 8, 16, 32, 64, 128, 256]  # measured on the official network
    video, audio, t = _inputs((64, 1))
    assert network(video, audio, t).shape == (2,)


def test_text_moves_the_logit_and_tokens_are_averaged():
    network = _random(_narrow("aggregate_time_and_cat_ch", video_text_dim=5, audio_text_dim=7))
    inputs = _inputs()
    text_v, text_a = jax.random.normal(jax.random.key(4), (2, 3, 5)), jnp.ones((2, 7))
    logit = network(*inputs, text_v, text_a)
    np.testing.assert_allclose(logit, network(*inputs, text_v.mean(1), text_a), rtol=1e-5)
    assert jnp.abs(logit - network(*inputs, text_v, 2 * text_a)).min() > 1e-4
    with pytest.raises(ValueError, match="text_video is required"):
        network(*inputs)
    with pytest.raises(ValueError, match="text_video is not accepted"):
        _random(NARROW)(*inputs, text_v, text_a)


def test_nearest_resampling():
    x = jnp.arange(3.0).reshape(1, 3, 1)
    assert nearest(x, 7)[0, :, 0].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest(x, 3)[0, :, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 3}, "4 channels cannot form 3 groups"),
        ({"audio_conv": "3d"}, "audio_conv is '3d'"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"num_res_blocks": 0}, "num_res_blocks is 0"),
        ({"video_text_dim": 4}, "give both or neither"),
    ],
)
def test_bad_spec(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NARROW, **change)


def test_bad_fusion():
    with pytest.raises(ValueError, match=r"unknown fusion kind 'x'; known kinds: \['aggregate"):
        FusionSpec(kind="x")
    with pytest.raises(ValueError, match="channels 7 must be even"):
        FusionSpec(kind="interp_time_and_cat_ch_and_apply_transformer", channels=7)
    short = FusionSpec(kind="cat_time_and_apply_transformer", channels=8, max_tokens=5)
    network = OfficialDiscriminator(dataclasses.replace(NARROW, fusion=short), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="11 tokens exceed the 5 positions"):
        network(*_inputs())


def test_bad_inputs():
    network = OfficialDiscriminator(NARROW, rngs=nnx.Rngs(0))
    video, audio, t = _inputs()
    with pytest.raises(ValueError, match=r"video has shape .* must be \[b f h w c\] with c=3"):
        network(jnp.moveaxis(video, -1, 2), audio, t)
    with pytest.raises(ValueError, match=r"audio has shape .* must be \[b l m c\] with c=1"):
        network(video, audio[..., 0], t)
    with pytest.raises(ValueError, match="cannot pool .* too short"):
        network(video[:, :, :1], audio, t)


@pytest.mark.parametrize(("logit", "slope"), [(0.0, 1.0), (5.0, 0.9985), (12.0, 0.38), (20.0, 0.0)])
def test_official_log_ratio_saturates(logit: float, slope: float):
    """Slopes measured on the official code in float32; the plain logit keeps slope 1."""
    got = jax.grad(lambda h: log_ratio(h, "official"))(jnp.float32(logit))
    assert float(got) == pytest.approx(slope, abs=5e-3)
    assert jax.grad(log_ratio)(logit) == 1.0


def test_log_ratio_values_and_unknown_form():
    assert float(log_ratio(jnp.float32(30), "official")) == pytest.approx(11.5129, abs=1e-3)
    assert float(log_ratio(jnp.float32(1.5), "official")) == pytest.approx(1.5, abs=1e-4)
    with pytest.raises(ValueError, match="unknown log-ratio form 'raw'; known forms"):
        log_ratio(jnp.zeros(1), "raw")

# SPDX-License-Identifier: Apache-2.0
"""The official discriminator beyond the golden files: derivatives, batches, widths, errors."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.discriminator.fusion import FUSIONS, FusionSpec, nearest
from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.discriminator.official import OfficialDiscriminator, OfficialDiscriminatorSpec
from mmdisco_jax.nn.init import param_keys

NARROW = OfficialDiscriminatorSpec(
    video_channels=3,
    audio_channels=1,
    model_channels=4,
    num_groups=2,
    num_res_blocks=1,
    channel_mult=(1,),  # one level: compiling takes most of the time, golden files have three
    emb_dim=8,
)


def _narrow(kind: str, **changes) -> OfficialDiscriminatorSpec:
    fusion = FusionSpec(
        kind=kind, num_layers=1, channels=8, out_channels=4, num_heads=2, head_dim=4
    )
    return dataclasses.replace(NARROW, fusion=fusion, **changes)


def _abstract(spec: OfficialDiscriminatorSpec) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: OfficialDiscriminator(spec, rngs=param_keys(0))))


def _random(spec: OfficialDiscriminatorSpec) -> tuple[Callable, nnx.State]:
    """Jitted network (params, video, audio, t, ...) and random parameters.

    Initial ones would not do: the zero layers hide most of the network.
    """
    graphdef, shapes = _abstract(spec)
    rng = np.random.default_rng(0)
    draws = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), x.dtype), shapes)
    return jax.jit(lambda params, *inputs: nnx.merge(graphdef, params)(*inputs)), draws


def _inputs(audio_shape: tuple[int, ...] = (6, 4, 1)):
    rng = np.random.default_rng(1)
    video = jnp.asarray(rng.standard_normal((2, 4, 4, 4, 3)), jnp.float32)
    audio = jnp.asarray(rng.standard_normal((2, *audio_shape)), jnp.float32)
    return video, audio, jnp.array([3, 700])


@pytest.mark.parametrize("kind", FUSIONS)
def test_samples_of_a_batch_are_independent(kind: str):
    logit, params = _random(_narrow(kind))
    inputs = _inputs()
    swapped = logit(params, *(x[::-1] for x in inputs))
    np.testing.assert_allclose(logit(params, *inputs)[::-1], swapped, rtol=1e-5, atol=1e-5)
    other = logit(params, *(x.at[1].multiply(3) for x in inputs))
    np.testing.assert_allclose(logit(params, *inputs)[0], other[0], rtol=1e-5, atol=1e-5)


def test_gradient_of_the_input_gradient():
    """As the denoising loss needs it: along one direction, against a central difference."""
    logit, params = _random(NARROW)
    video, audio, t = _inputs()

    def loss(params):
        def total(pair):
            return logit(params, *pair, t).sum()

        return sum(jnp.square(g).sum() for g in jax.tree.leaves(jax.grad(total)((video, audio))))

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    gradient = value_and_grad(params)[1]
    norm = float(jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))))
    step = 1e-3

    def moved(sign: int) -> float:
        shifted = jax.tree.map(lambda p, g: p + sign * step / norm * g, params, gradient)
        return float(value_and_grad(shifted)[0])

    assert (moved(1) - moved(-1)) / (2 * step) == pytest.approx(norm, rel=1e-2)


def test_waveform_tower_dilates_by_block():
    spec = dataclasses.replace(
        NARROW, audio_conv="1d", num_res_blocks=2, channel_mult=(1, 2, 4), dilation_period=10
    )
    network = nnx.merge(*_abstract(spec))
    dilations = [
        block[0].audio_in_layers[2].audio_conv.dilation
        for block in list(network.feature_extractor.input_blocks)[1:]
    ]
    assert dilations == [2, 4, 8, 16, 32, 64, 128, 256]  # measured on the official network


def test_text_moves_the_logit_and_tokens_are_averaged():
    logit, params = _random(
        _narrow("aggregate_time_and_cat_ch", video_text_dim=5, audio_text_dim=7)
    )
    inputs = _inputs()
    text_v, text_a = jnp.arange(30.0).reshape(2, 3, 5) % 4, jnp.ones((2, 1, 7))
    got = logit(params, *inputs, text_v, text_a)
    averaged = jnp.repeat(text_v.mean(1, keepdims=True), 3, axis=1)
    np.testing.assert_allclose(got, logit(params, *inputs, averaged, text_a), rtol=1e-5)
    assert jnp.abs(got - logit(params, *inputs, text_v, 2 * text_a)).min() > 1e-4
    with pytest.raises(ValueError, match="text_video is required"):
        logit(params, *inputs)
    with pytest.raises(ValueError, match="text_video is not accepted"):
        nnx.merge(*_abstract(NARROW))(*inputs, text_v, text_a)


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
    logit, params = _random(dataclasses.replace(NARROW, fusion=short))
    with pytest.raises(ValueError, match="11 tokens exceed the 5 positions"):
        logit.lower(params, *_inputs())


def test_bad_inputs():
    logit, params = _random(NARROW)
    video, audio, t = _inputs()
    with pytest.raises(ValueError, match=r"video has shape .* must be \[b f h w c\] with c=3"):
        logit.lower(params, jnp.moveaxis(video, -1, 2), audio, t)
    with pytest.raises(ValueError, match=r"audio has shape .* must be \[b l m c\] with c=1"):
        logit.lower(params, video, audio[..., 0], t)
    two_levels, params = _random(dataclasses.replace(NARROW, channel_mult=(1, 1)))
    with pytest.raises(ValueError, match=r"cannot pool .* too short"):
        two_levels.lower(params, video[:, :, :1], audio, t)


@pytest.mark.parametrize(("logit", "slope"), [(0.0, 1.0), (5.0, 0.9985), (12.0, 0.38), (20.0, 0.0)])
def test_official_log_ratio_saturates(logit: float, slope: float):
    """Slopes measured on the official code in float32; the plain logit keeps slope 1."""
    got = jax.grad(lambda h: log_ratio(h, "official"))(jnp.float32(logit))
    assert float(got) == pytest.approx(slope, abs=5e-3)
    assert jax.grad(log_ratio)(logit) == 1.0


def test_log_ratio_values_and_unknown_form():
    assert float(log_ratio(jnp.float32(30), "official")) == pytest.approx(11.512, abs=5e-3)
    assert float(log_ratio(jnp.float32(1.5), "official")) == pytest.approx(1.5, abs=1e-4)
    with pytest.raises(ValueError, match="unknown log-ratio form 'raw'; known forms"):
        log_ratio(jnp.zeros(1), "raw")

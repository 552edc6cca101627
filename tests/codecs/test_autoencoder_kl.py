# SPDX-License-Identifier: Apache-2.0
"""The KL autoencoder against diffusers': numbers, names, released sizes, configs, errors."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.codecs.autoencoder_kl import (
    AutoencoderKL,
    AutoencoderKLSpec,
    current_name,
    from_model,
    posterior,
    spec_from_config,
    to_model,
)
from mmdisco_jax.nn.init import param_keys, skeleton
from mmdisco_jax.porting.load import from_torch, to_torch
from tests.golden.checker import relative_error
from tests.support.codec_references import count, meta_shapes, port_shapes, randomised, tensors
from tests.support.randoms import random_module

# Levels, layers, group counts and channels differ; the last has neither attention nor 1x1s.
CONFIGS: dict[str, dict[str, Any]] = {
    "frames": {
        "block_out_channels": (8, 12),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "shift_factor": 0.25,
    },
    "mel": {
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": 8,
        "block_out_channels": (4, 8, 4),
        "norm_num_groups": 2,
        "scaling_factor": 0.9,
    },
    "plain": {
        "in_channels": 2,
        "out_channels": 5,
        "latent_channels": 3,
        "block_out_channels": (6,),
        "norm_num_groups": 3,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
}
# As config.json has them: Stable Diffusion 1.5's names no scaling factor.
SD15 = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
AUDIOLDM = SD15 | {
    "block_out_channels": [128, 256, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 8,
    "scaling_factor": 0.91383,
}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    levels = len(config["block_out_channels"])
    return config | {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }


def reference(config: dict[str, Any]) -> Any:
    importlib.import_module("torch")
    diffusers = importlib.import_module("diffusers")
    return diffusers.AutoencoderKL(**{k: v for k, v in config.items() if not k.startswith("_")})


@pytest.mark.parametrize("name", CONFIGS)
def test_parity(name: str):
    config = complete(CONFIGS[name])
    theirs = randomised(reference(config))
    spec = spec_from_config(dict(theirs.config))
    weights = tensors(theirs)
    graphdef, abstract = skeleton(functools.partial(AutoencoderKL, spec))
    params = from_torch(abstract, weights)
    back = to_torch(params)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[key], weights[key]) for key in weights)

    torch = __import__("torch")
    x = np.random.default_rng(1).standard_normal((2, spec.in_channels, 12, 20), dtype=np.float32)
    with torch.no_grad():
        latents = theirs.encode(torch.tensor(x)).latent_dist
        decoded = theirs.decode(latents.mean).sample
    moments, got = jax.jit(lambda m, x, z: (m.encode(x), m.decode(z)))(
        nnx.merge(graphdef, params),
        x.transpose(0, 2, 3, 1),
        latents.mean.numpy().transpose(0, 2, 3, 1),
    )
    mean, logvar = np.split(np.asarray(moments).transpose(0, 3, 1, 2), 2, axis=1)
    for ours, want in (
        (mean, latents.mean),
        (logvar, latents.logvar),
        (np.asarray(got).transpose(0, 3, 1, 2), decoded),
    ):
        assert ours.shape == tuple(want.shape)
        assert relative_error(ours, want.numpy()) < 1e-5


@pytest.mark.parametrize(
    ("config", "number", "scale"), [(SD15, 83_653_863, 0.18215), (AUDIOLDM, 55_376_873, 0.91383)]
)
def test_released_sizes(config: dict[str, Any], number: int, scale: float):
    spec = spec_from_config(config)
    shapes = port_shapes(skeleton(functools.partial(AutoencoderKL, spec))[1])
    assert shapes == meta_shapes(lambda: reference(config))
    assert count(shapes) == number
    assert spec.scaling_factor == pytest.approx(scale)


def test_bfloat16_comes_near_and_keeps_its_dtype():
    config = complete({"block_out_channels": (16,), "norm_num_groups": 4})
    model = random_module(lambda: AutoencoderKL(spec_from_config(config), rngs=param_keys(0)))
    run = jax.jit(lambda z: model.decode(z))
    z = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6, 5, 4)), jnp.float32)
    exact, coarse = run(z), run(z.astype(jnp.bfloat16))
    assert coarse.dtype == jnp.bfloat16
    assert 1e-4 < relative_error(coarse.astype(jnp.float32), exact) < 0.05
    moments = jax.eval_shape(model.encode, jax.ShapeDtypeStruct((1, 6, 5, 3), jnp.bfloat16))
    assert moments.dtype == jnp.float32


def test_moments_and_scaling_in_closed_form():
    moments = jnp.asarray([[1.0, -2.0, 0.0, 2 * np.log(3.0)]])
    np.testing.assert_array_equal(posterior(moments), [[1.0, -2.0]])
    sample = posterior(moments, jnp.asarray([[0.5, 2.0]]))
    np.testing.assert_allclose(sample, [[1.5, 4.0]], rtol=1e-6)
    spec = spec_from_config(complete(CONFIGS["frames"]) | {"scaling_factor": 2.0})
    np.testing.assert_allclose(to_model(spec, jnp.asarray([1.25])), [2.0])
    np.testing.assert_allclose(from_model(spec, jnp.asarray([2.0])), [1.25])


def test_log_variance_is_clamped_as_the_reference_does():
    spec = spec_from_config(complete(CONFIGS["plain"]))
    model = random_module(lambda: AutoencoderKL(spec, rngs=param_keys(0)))
    model.encoder.conv_out.bias[...] = jnp.asarray([99.0, -99, 0, 99, -99, 0])
    moments = jax.jit(lambda x: model.encode(x))(np.zeros((1, 2, 2, 2), np.float32))
    assert float(moments[0, 0, 0, 0]) > 90
    np.testing.assert_array_equal(moments[0, 0, 0, 3:5], [20.0, -30.0])


def test_old_attention_names_are_renamed_as_diffusers_does():
    theirs = reference(complete(CONFIGS["mel"]))
    names = {name: name for name in theirs.state_dict()}
    old = {
        name.replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value")
        .replace("to_out.0", "proj_attn"): name
        for name in names
    }
    assert len(old.keys() - names.keys()) == 16
    assert {current_name(name): value for name, value in old.items()} == names
    assert all(current_name(name) == name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, "act_fn='gelu', and this port has act_fn='silu' or 'swish' only"),
        (
            {"latents_mean": [0.0]},
            r"latents_mean=\[0.0\], and this port has latents_mean=None only",
        ),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "only 'DownEncoderBlock2D'"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 3}, "for each of the 4 block_out_channels"),
        ({"spectral": True}, "the unknown key spectral=True; this port knows"),
        ({"norm_num_groups": 24}, "128 channels cannot form 24 groups"),
        ({"layers_per_block": 0}, "layers_per_block is 0; it must be at least 1"),
        ({"scaling_factor": 0.0}, r"scaling_factor is 0.0; it must be > 0"),
        ({"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "is empty"),
    ],
)
def test_bad_configs_are_named(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spec_from_config(SD15 | change)


def test_bad_inputs_are_named():
    spec = AutoencoderKLSpec(
        in_channels=1,
        out_channels=1,
        latent_channels=2,
        block_out_channels=(2, 2),
        layers_per_block=1,
        norm_num_groups=1,
    )
    model = nnx.eval_shape(lambda: AutoencoderKL(spec, rngs=param_keys(0)))
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 1\); both sides must be multiples of 2"):
        model.encode(jnp.zeros((1, 3, 4, 1)))
    with pytest.raises(ValueError, match=r"x has shape \(1, 4, 4, 3\); it must be .* c=1"):
        model.encode(jnp.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match=r"z has shape \(4, 4, 2\)"):
        model.decode(jnp.zeros((4, 4, 2)))

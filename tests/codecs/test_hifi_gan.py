# SPDX-License-Identifier: Apache-2.0
"""The vocoder against transformers': numbers, names, weight norms, released size, errors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.codecs.hifi_gan import (
    OVERRIDES,
    ConvTranspose,
    HifiGan,
    HifiGanSpec,
    spec_from_config,
)
from mmdisco_jax.nn.init import param_keys, skeleton
from mmdisco_jax.porting.load import from_torch, to_torch
from mmdisco_jax.porting.weight_norm import folded
from tests.golden.checker import relative_error
from tests.support.codec_references import count, meta_shapes, port_shapes, randomised, tensors

# Windows that exceed the rate by even and odd numbers and by none; with and without statistics.
CONFIGS: dict[str, dict[str, Any]] = {
    "standardised": {
        "model_in_dim": 6,
        "upsample_initial_channel": 8,
        "upsample_rates": [3, 2],
        "upsample_kernel_sizes": [5, 4],
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3], [1, 2]],
        "normalize_before": True,
    },
    "odd": {
        "model_in_dim": 4,
        "upsample_initial_channel": 8,
        "upsample_rates": [5, 2],
        "upsample_kernel_sizes": [16, 3],
        "resblock_kernel_sizes": [7],
        "resblock_dilation_sizes": [[1, 3, 5]],
        "normalize_before": False,
    },
    "steep": {
        "model_in_dim": 5,
        "upsample_initial_channel": 4,
        "upsample_rates": [4],
        "upsample_kernel_sizes": [4],
        "resblock_kernel_sizes": [1, 3, 11],
        "resblock_dilation_sizes": [[1], [2], [1, 4]],
        "leaky_relu_slope": 0.3,
    },
}
AUDIOLDM = {
    "model_in_dim": 64,
    "sampling_rate": 16000,
    "upsample_initial_channel": 1024,
    "upsample_rates": [5, 4, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "leaky_relu_slope": 0.1,
    "normalize_before": False,
    "model_type": "speecht5_hifigan",
    "transformers_version": "4.27.0.dev0",
}


def reference(config: dict[str, Any]) -> Any:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**config))


def port(spec: HifiGanSpec) -> tuple[nnx.GraphDef, nnx.State]:
    return skeleton(functools.partial(HifiGan, spec))


@pytest.mark.parametrize("name", CONFIGS)
def test_parity(name: str):
    theirs = randomised(reference(CONFIGS[name]))
    spec = spec_from_config(theirs.config.to_dict())
    graphdef, abstract = port(spec)
    weights = tensors(theirs)
    params = from_torch(abstract, weights, overrides=OVERRIDES)
    back = to_torch(params, overrides=OVERRIDES)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[key], weights[key]) for key in weights)

    torch = __import__("torch")
    mel = np.random.default_rng(1).standard_normal((2, 9, spec.model_in_dim), dtype=np.float32)
    with torch.no_grad():
        want = theirs(torch.tensor(mel)).numpy()
    got = jax.jit(lambda params, mel: nnx.merge(graphdef, params)(mel))(params, mel)
    assert got.shape == want.shape == (2, spec.num_samples(9))
    assert relative_error(got, want) < 1e-5


def test_released_size():
    spec = spec_from_config(AUDIOLDM)
    shapes = port_shapes(port(spec)[1], OVERRIDES)
    assert shapes == meta_shapes(lambda: reference(AUDIOLDM))
    assert count(shapes) - len(("mean", "scale")) * 64 == 55_264_897
    assert (spec.hop_length, spec.num_samples(200)) == (160, 32_032)


@pytest.mark.parametrize("old", [True, False])
def test_weight_norm_folds_as_pytorch_applies_it(old: bool):
    torch = pytest.importorskip("torch")
    norm = torch.nn.utils.weight_norm if old else torch.nn.utils.parametrizations.weight_norm
    theirs = reference(CONFIGS["standardised"])
    kinds = (torch.nn.Conv1d, torch.nn.ConvTranspose1d)
    layers = [m for m in theirs.modules() if isinstance(m, kinds)]
    for layer in layers:
        norm(layer)
    randomised(theirs)
    stored = tensors(theirs)
    ends = ("weight_g", "original0")
    assert sum(name.endswith(ends) for name in stored) == len(layers) == 20
    plain = folded(stored)
    # What the layers compute with: a forward pre-hook of the old form, a property of the new.
    mel = torch.ones(1, 3, 6)
    with torch.no_grad():
        want = theirs(mel).numpy()
    for name, layer in theirs.named_modules():
        if layer in layers:
            weight = layer.weight.detach().numpy()
            np.testing.assert_allclose(plain[f"{name}.weight"], weight, rtol=1e-5, atol=1e-7)
    graphdef, abstract = port(spec_from_config(theirs.config.to_dict()))
    params = from_torch(abstract, plain, overrides=OVERRIDES)
    got = jax.jit(lambda params, mel: nnx.merge(graphdef, params)(mel))(params, mel.numpy())
    assert relative_error(got, want) < 1e-5


@pytest.mark.parametrize(("window", "stride"), [(3, 3), (8, 4), (16, 5)])
def test_a_transposed_convolution_is_the_adjoint_of_the_strided_one(window: int, stride: int):
    """<up(x), y> = <x, down(y)>: by the definition, not by a library's word."""
    rng = np.random.default_rng(0)
    layer = ConvTranspose(2, 3, window, stride, rngs=param_keys(0))
    kernel = rng.standard_normal((window, 3, 2))
    layer.kernel[...] = jnp.asarray(kernel, jnp.float32)
    x = rng.standard_normal((1, 7, 2)).astype(np.float32)
    up = np.asarray(jax.jit(lambda x: layer(x))(x))[0]
    assert len(up) == 7 * stride + (window - stride) % 2
    y = rng.standard_normal(up.shape)
    margin = (window - stride) // 2
    padded = np.pad(y, ((margin, margin), (0, 0)))
    down = np.stack(
        [np.einsum("ko,koi->i", padded[j * stride :][:window], kernel) for j in range(7)]
    )
    assert np.sum(up * y) == pytest.approx(np.sum(x[0] * down), rel=1e-4)


def test_half_a_weight_norm_and_other_forms_are_named():
    g, v = np.ones((2, 1), np.float32), np.ones((2, 3), np.float32)
    np.testing.assert_allclose(
        folded({"a.weight_g": 2 * g, "a.weight_v": v})["a.weight"], 2 / 3**0.5
    )
    assert folded({"bias": v})["bias"] is v
    with pytest.raises(ValueError, match=r"a.weight_g .* must hold a.weight_v beside it"):
        folded({"a.weight_g": g})
    with pytest.raises(ValueError, match=r"and no a\.weight"):
        folded({"a.weight_g": g, "a.weight_v": v, "a.weight": v})
    with pytest.raises(ValueError, match=r"\['a.parametrizations.weight.original1'\] are direct"):
        folded({"a.parametrizations.weight.original1": v})
    with pytest.raises(ValueError, match=r"is \(1, 3\), but must be \(2, 1\)"):
        folded({"a.weight_g": g[:1] * np.ones((1, 3)), "a.weight_v": v})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "univnet"}, "model_type='univnet', but only 'speecht5_hifigan'"),
        ({"upsample_rates": [5, 4]}, r"upsample_rates \(5, 4\) and upsample_kernel_sizes"),
        ({"resblock_kernel_sizes": [3, 7]}, "must be equally long"),
        ({"upsample_rates": [5, 17, 2, 2, 2]}, "has 16 for a rate of 17"),
        ({"resblock_kernel_sizes": [3, 4, 6]}, r"\[4, 6\] must be odd"),
        ({"upsample_initial_channel": 48}, "use a multiple of 32"),
    ],
)
def test_bad_configs_are_named(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spec_from_config(AUDIOLDM | change)


def test_bad_spectrograms_are_named():
    spec = spec_from_config(CONFIGS["odd"])
    model = nnx.merge(*port(spec))
    with pytest.raises(ValueError, match=r"mel has shape \(2, 9, 3\); it must be .* m=4"):
        model(jnp.zeros((2, 9, 3)))

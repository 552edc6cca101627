# SPDX-License-Identifier: Apache-2.0
"""Golden kind "autoencoder_kl": diffusers' AutoencoderKL, of pictures or of spectrograms.

`decoded` is of the latents' mean, and `logvar` as the posterior clamps it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.codecs.autoencoder_kl import AutoencoderKL, spec_from_config
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from tests.golden.checker import FORWARD, Golden, Pair


def check(golden: Golden) -> dict[str, Pair]:
    spec = spec_from_config(golden.require("config"))
    model = load_module(lambda: AutoencoderKL(spec, rngs=param_keys(0)), golden.weights())
    graphdef, params = nnx.split(model)

    @jax.jit
    def run(params, x):
        model = nnx.merge(graphdef, params)
        mean, logvar = jnp.split(model.encode(x), 2, axis=-1)
        return mean, logvar, model.decode(mean)

    arrays = run(params, jnp.asarray(golden["x"].transpose(0, 2, 3, 1)))
    return {
        name: Pair(np.asarray(array).transpose(0, 3, 1, 2), golden[name], FORWARD)
        for name, array in zip(("mean", "logvar", "decoded"), arrays, strict=True)
    }

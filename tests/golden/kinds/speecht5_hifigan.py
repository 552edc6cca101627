# SPDX-License-Identifier: Apache-2.0
"""Golden kind "speecht5_hifigan": transformers' vocoder."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.codecs.hifi_gan import OVERRIDES, HifiGan, spec_from_config
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from tests.golden.checker import FORWARD, Golden, Pair


def check(golden: Golden) -> dict[str, Pair]:
    spec = spec_from_config(golden.require("config"))
    model = load_module(
        lambda: HifiGan(spec, rngs=param_keys(0)), golden.weights(), overrides=OVERRIDES
    )
    graphdef, params = nnx.split(model)
    run = jax.jit(lambda params, mel: nnx.merge(graphdef, params)(mel))
    wave = run(params, jnp.asarray(golden["mel"]))
    return {"wave": Pair(np.asarray(wave), golden["wave"], FORWARD)}

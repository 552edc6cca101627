# SPDX-License-Identifier: Apache-2.0
"""Golden kinds "unet2d_condition" and "unet_motion": diffusers' U-Nets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.base_models import unet_2d_spec, unet_motion
from mmdisco_jax.base_models.unet_2d import UNet2D
from mmdisco_jax.base_models.unet_motion import UNetMotion
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from tests.golden.checker import FORWARD, Golden, Pair

# The network, how its config is read, and its axes from the official ones.
_KINDS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "unet2d_condition": (UNet2D, unet_2d_spec.spec_from_config, (0, 2, 3, 1)),
    "unet_motion": (UNetMotion, unet_motion.spec_from_config, (0, 2, 3, 4, 1)),
}


def check(golden: Golden) -> dict[str, Pair]:
    network, spec_from_config, axes = _KINDS[golden.kind]
    spec = spec_from_config(golden.require("config"))
    model = load_module(lambda: network(spec, rngs=param_keys(0)), golden.weights())
    graphdef, params = nnx.split(model)
    given = {name: jnp.asarray(golden[name]) for name in golden.names if name != "eps"}
    x, t = given.pop("x").transpose(axes), given.pop("timesteps").astype(jnp.int32)
    out = jax.jit(lambda params, x, t, given: nnx.merge(graphdef, params)(x, t, **given))(
        params, x, t, given
    )
    eps = np.asarray(out).transpose(np.argsort(axes))
    return {"eps": Pair(eps, golden["eps"], FORWARD)}

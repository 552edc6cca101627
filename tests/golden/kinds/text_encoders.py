# SPDX-License-Identifier: Apache-2.0
"""Golden kinds "clip_text" and "clap_text": transformers' text encoders."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from mmdisco_jax.text import clap, clip
from tests.golden.checker import FORWARD, Golden, Pair


def check(golden: Golden) -> dict[str, Pair]:
    kinds: dict[str, tuple[Any, Any]] = {
        "clip_text": (clip, clip.ClipText),
        "clap_text": (clap, clap.ClapText),
    }
    port, make = kinds[golden.kind]
    spec = port.spec_from_config(golden.require("config"))
    tensors = {port.port_name(name): value for name, value in golden.weights().items()}
    graphdef, params = nnx.split(load_module(lambda: make(spec, rngs=param_keys(0)), tensors))
    inputs = [golden["input_ids"]]
    if "attention_mask" in golden:
        inputs.append(golden["attention_mask"])
    run = jax.jit(lambda params, *ids: nnx.merge(graphdef, params)(*ids))
    out = run(params, *(jnp.asarray(x, jnp.int32) for x in inputs))._asdict()
    outputs = [name for name in golden.names if name in out]
    return {name: Pair(out[name], golden[name], FORWARD) for name in outputs}

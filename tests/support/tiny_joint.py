# SPDX-License-Identifier: Apache-2.0
"""A joint base model that compiles in a second: a layer for each modality, and one for what it
knows of the other, where the coupled U-Net's smallest takes half a minute."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models.joint import JointBase
from mmdisco_jax.nn.init import Init, definition
from mmdisco_jax.types import AV, Array, Cond

NAME = "tests.support.tiny_joint:TinyJointBase"


class TinyJoint(nnx.Module):
    """Linear layers over the channels of audio [b l c] and video [b f h w c]."""

    def __init__(self, channels: dict[str, int], learn_sigma: bool, *, rngs: nnx.Rngs):
        own = {m: nnx.Linear(c, (1 + learn_sigma) * c, rngs=rngs) for m, c in channels.items()}
        audio, video = (channels[m] for m in ("audio", "video"))
        self.layers = nnx.Dict(own)
        self.seen = nnx.Linear(video, (1 + learn_sigma) * audio, rngs=rngs)
        self.heard = nnx.Linear(audio, (1 + learn_sigma) * video, rngs=rngs)

    def __call__(self, x_t: AV, t: Array) -> AV:
        level = {m: jnp.reshape(t / 1000, (-1,) + (1,) * (x.ndim - 1)) for m, x in x_t.items()}
        mean = {m: x.mean(tuple(range(1, x.ndim - 1)), keepdims=True) for m, x in x_t.items()}
        other = {"audio": self.seen(mean["video"][:, 0, 0]), "video": self.heard(mean["audio"])}
        other["video"] = other["video"][:, None, None]
        return {m: (self.layers[m](x) + other[m]) * (1 - level[m]) for m, x in x_t.items()}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TinyJointBase(JointBase):
    """Recipe of `TinyJoint`, as a project of its own would write one."""

    learn_sigma: bool = False

    @property
    def learns_variance(self) -> bool:
        return self.learn_sigma

    def definition(self) -> tuple[nnx.GraphDef, Init]:
        channels = {m: f.shape[-1] for m, f in self.formats.items()}
        return definition(functools.partial(TinyJoint, channels, self.learn_sigma))

    def run(self, network: Any, x: AV, t: Array, cond: Cond, key: Array, *, training: bool) -> AV:
        del cond, key, training  # unconditional, and without dropout
        return network(x, t)


def with_tiny_joint(config: Any, **settings: Any) -> Any:
    """The config with its base model `joint` replaced by the tiny one, on the same codecs."""
    config = config.copy_and_resolve_references()
    joint = config.bases.joint
    with config.unlocked():
        config.bases.joint = {
            "name": NAME,
            "codec": joint.codec.to_dict(),
            "schedule": joint.schedule.to_dict(),
            "prediction": "x0",
            "learn_sigma": False,
        } | settings
    return config

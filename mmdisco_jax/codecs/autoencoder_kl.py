# SPDX-License-Identifier: Apache-2.0
"""The KL autoencoder of latent diffusion (Rombach et al. 2022), equal to diffusers' AutoencoderKL.

For frames (Stable Diffusion's VAE) and for mel spectrograms as pictures with one channel
(AudioLDM's).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.codecs.autoencoder_kl_blocks import Decoder, Encoder
from mmdisco_jax.nn.config_json import read_config
from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.nn.norm import check_groups
from mmdisco_jax.porting.port import Port

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderKLSpec:
    """Sizes of the network, by diffusers' names.

    Attributes:
      in_channels, out_channels: of the pictures; latent_channels: of the latents.
      block_out_channels: width of each level; every level but the last halves both sides.
      layers_per_block: residual blocks per level of the encoder; the decoder has one more.
      norm_num_groups: of every group norm; must divide each width.
      scaling_factor, shift_factor: a diffusion model sees (z - shift_factor) * scaling_factor.
      use_quant_conv, use_post_quant_conv: 1x1 convolutions after the encoder, before the decoder.
      mid_block_add_attention: attention among all positions where the picture is smallest.
    """

    in_channels: int
    out_channels: int
    latent_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self):
        for name in ("in_channels", "out_channels", "latent_channels", "layers_per_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.block_out_channels:
            raise ValueError("block_out_channels is empty; name the width of at least one level.")
        for width in self.block_out_channels:
            check_groups(width, self.norm_num_groups)
        if not self.scaling_factor > 0:
            raise ValueError(f"scaling_factor is {self.scaling_factor}; it must be > 0.")

    @property
    def factor(self) -> int:
        """How many times smaller than the picture a latent is, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


class AutoencoderKL(nnx.Module):
    """Pictures [b h w c] <-> latents [b h/factor w/factor latent_channels], unscaled."""

    def __init__(self, spec: AutoencoderKLSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        latent = spec.latent_channels
        sizes: dict[str, Any] = {
            "widths": spec.block_out_channels,
            "groups": spec.norm_num_groups,
            "num_layers": spec.layers_per_block,
            "attend": spec.mid_block_add_attention,
            "rngs": rngs,
        }
        self.encoder = Encoder(spec.in_channels, 2 * latent, **sizes)
        self.decoder = Decoder(latent, spec.out_channels, **sizes)
        quant, post = spec.use_quant_conv, spec.use_post_quant_conv
        self.quant_conv = Conv(2 * latent, 2 * latent, (1, 1), rngs=rngs) if quant else None
        self.post_quant_conv = Conv(latent, latent, (1, 1), rngs=rngs) if post else None

    def encode(self, x: Array) -> Array:
        """The latents' mean and, after it, their log-variance: moments for `posterior`.

        Args:
          x: [b h w in_channels], in [-1, 1] for frames; h and w multiples of `spec.factor`. The
            network computes in the dtype of x, norms and softmax in float32.

        Returns:
          float32 [b h/factor w/factor 2*latent_channels]; the log-variance is in [-30, 20], to
          which the reference clamps it.

        Raises:
          ValueError: x does not fit.
        """
        _check(x, "x", self.spec.in_channels)
        factor = self.spec.factor
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"x has shape {x.shape}; both sides must be multiples of {factor}, by which the "
                "latents are smaller: pad, crop or resize."
            )
        moments = self.encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return jnp.concatenate([mean, jnp.clip(logvar, -30.0, 20.0)], axis=-1)

    def decode(self, z: Array) -> Array:
        """Pictures [b factor*h factor*w out_channels] of latents z [b h w latent_channels].

        Computed and given in the dtype of z. Raises ValueError if z does not fit.
        """
        _check(z, "z", self.spec.latent_channels)
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        return self.decoder(z)


def _check(x: Array, name: str, channels: int) -> None:
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(f"{name} has shape {x.shape}; it must be [b h w c] with c={channels}.")


def posterior(moments: Array, noise: Array | None = None) -> Array:
    """The mean [... c] of moments [... 2c], or a sample with standard normal `noise` [... c]."""
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return mean if noise is None else mean + jnp.exp(logvar / 2) * noise


def to_model(spec: AutoencoderKLSpec, z: Array) -> Array:
    """What the diffusion model sees of latents z: about unit variance."""
    return (z - spec.shift_factor) * spec.scaling_factor


def from_model(spec: AutoencoderKLSpec, x: Array) -> Array:
    """The inverse of `to_model`."""
    return x / spec.scaling_factor + spec.shift_factor


_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "latent_channels": 4,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
_FIXED = {"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,)}
# The size of diffusers' tiles, and a remark on float16: they do not change the network.
_IGNORED = ("sample_size", "force_upcast")


def spec_from_config(config: Mapping[str, Any]) -> AutoencoderKLSpec:
    """The spec of diffusers' `config.json`.

    Raises:
      ValueError: an option that this port does not have; it is named.
    """
    values = read_config(
        config, model="autoencoder", defaults=_DEFAULTS, fixed=_FIXED, ignored=_IGNORED
    )
    values["block_out_channels"] = widths = tuple(values["block_out_channels"])
    for key in ("down_block_types", "up_block_types"):
        types, (block,) = tuple(values.pop(key)), _DEFAULTS[key]
        if types != (block,) * len(widths):
            raise ValueError(
                f"the autoencoder's config has {key}={types}, but only {block!r} is ported, once "
                f"for each of the {len(widths)} block_out_channels: choose another checkpoint."
            )
    values["shift_factor"] = values["shift_factor"] or 0.0
    return AutoencoderKLSpec(**values)


_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(_OLD_NAMES)})\.(weight|bias)$")


def current_name(name: str) -> str:
    """The name that diffusers gives a tensor today.

    Files from before 2023, such as Stable Diffusion 1.5's, call the attention's projections
    query, key, value and proj_attn. Other names stay.
    """
    return _OLD.sub(lambda found: f"{found[1]}.{_OLD_NAMES[found[2]]}.{found[3]}", name)


PORT = Port(spec_of=spec_from_config, module=AutoencoderKL, rename=current_name)

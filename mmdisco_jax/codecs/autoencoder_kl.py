# SPDX-License-Identifier: Apache-2.0
"""KL-regularised autoencoder of latent diffusion (Rombach et al. 2022).

It encodes video frames (Stable Diffusion's VAE) or mel spectrograms, as pictures with one channel
(AudioLDM's). Equal to diffusers' `AutoencoderKL` in parameter names, shapes and numbers.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from mmdisco_jax.codecs.autoencoder_kl_blocks import Decoder, Encoder
from mmdisco_jax.nn.checks import check_positive
from mmdisco_jax.nn.config_json import read_config
from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.nn.norm import check_groups
from mmdisco_jax.porting.port import Port

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderKLSpec:
    """Sizes of the autoencoder, under diffusers' names.

    Attributes:
      in_channels, out_channels: channels of the pictures.
      latent_channels: channels of the latents.
      block_out_channels: width of each level; every level but the last halves both sides.
      layers_per_block: residual blocks per level of the encoder; the decoder has one more.
      norm_num_groups: groups of every group norm; must divide each width.
      scaling_factor, shift_factor: diffusion models see (z - shift_factor) * scaling_factor.
      use_quant_conv: 1x1 convolution after the encoder.
      use_post_quant_conv: 1x1 convolution before the decoder.
      mid_block_add_attention: self-attention at the lowest resolution.

    Raises:
      ValueError: a size is below 1, or the widths do not divide into groups.
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
        check_positive(self, "in_channels", "out_channels", "latent_channels", "layers_per_block")
        if not self.block_out_channels:
            raise ValueError("block_out_channels is empty; name the width of at least one level.")
        for width in self.block_out_channels:
            check_groups(width, self.norm_num_groups)
        if not self.scaling_factor > 0:
            raise ValueError(f"scaling_factor is {self.scaling_factor}; it must be > 0.")

    @property
    def factor(self) -> int:
        """Factor by which a latent is smaller than the picture, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


class AutoencoderKL(nnx.Module):
    """KL autoencoder. Maps pictures [b h w c] to unscaled latents [b h/factor w/factor z] and back.

    Use `to_model` and `from_model` to scale latents for a diffusion model.
    """

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
        """Encode pictures to the moments of the latents' distribution, for `posterior`.

        Args:
          x: [b h w in_channels], in [-1, 1] for frames; h and w are multiples of `spec.factor`.
            The network computes in the dtype of x; norms and softmax are float32.

        Returns:
          Mean and log-variance, float32 [b h/factor w/factor 2*latent_channels]. The log-variance
          is clipped to [-30, 20], as in diffusers.

        Raises:
          ValueError: x has other channels, or sides that `spec.factor` does not divide.
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
        """Decode latents z [b h w latent_channels] to [b factor*h factor*w out_channels].

        Pictures are computed and returned in the dtype of z.

        Raises:
          ValueError: z has other channels.
        """
        _check(z, "z", self.spec.latent_channels)
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        return self.decoder(z)


def _check(x: Array, name: str, channels: int) -> None:
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(f"{name} has shape {x.shape}; it must be [b h w c] with c={channels}.")


def posterior(moments: Array, noise: Array | None = None) -> Array:
    """Return the mean [... c] of the moments [... 2c], or a sample if given noise.

    Args:
      noise: standard normal [... c], or None for the mean.
    """
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return mean if noise is None else mean + jnp.exp(logvar / 2) * noise


def to_model(spec: AutoencoderKLSpec, z: Array) -> Array:
    """Scale latents z to about unit variance, as a diffusion model expects them."""
    return (z - spec.shift_factor) * spec.scaling_factor


def from_model(spec: AutoencoderKLSpec, x: Array) -> Array:
    """Invert `to_model`: scale a diffusion model's latents for the decoder."""
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
# The size of diffusers' tiles and a hint on float16, neither of which changes the network.
_IGNORED = ("sample_size", "force_upcast")


def spec_from_config(config: Mapping[str, Any]) -> AutoencoderKLSpec:
    """Read the spec from the `config.json` of a diffusers `AutoencoderKL`.

    Raises:
      ValueError: the config has an option that this port does not have.
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
    """Map the name of a tensor in an old checkpoint to diffusers' current name.

    Files from before 2023, such as Stable Diffusion 1.5's, call the attention's projections query,
    key, value and proj_attn. Other names are returned unchanged.
    """
    return _OLD.sub(lambda found: f"{found[1]}.{_OLD_NAMES[found[2]]}.{found[3]}", name)


PORT = Port(spec_of=spec_from_config, module=AutoencoderKL, rename=current_name)

# SPDX-License-Identifier: Apache-2.0
"""MM-Diffusion's coupled U-Net (Ruan et al. 2023): predicts the noise of video and audio jointly.

Equal to the official network in parameter names, shapes and numbers. It deviates only where the
official code is wrong: the backward pass uses the random shift and dropout of the forward pass;
group norms always normalise channels (the official ones normalise frames if a clip has as many
frames as the layer has channels); a window longer than the clip is refused; and options that the
official code drops silently are explicit (see `MMDiffusionSpec`).
"""

import jax.numpy as jnp
from flax import nnx

from mmdisco_jax.base_models.mm_diffusion_blocks import (
    Context,
    CrossAttentionBlock,
    ResBlock,
    call_block,
)
from mmdisco_jax.base_models.mm_diffusion_spec import MMDiffusionSpec
from mmdisco_jax.nn.av_layers import (
    AUDIO_POOL,
    VIDEO_POOL,
    AudioConv,
    InitialBlock,
    Normalization,
    VideoConv,
)
from mmdisco_jax.nn.layers import SiLU, chain
from mmdisco_jax.nn.time_embedding import sinusoidal_embedding
from mmdisco_jax.types import AV, Array


class MultimodalUNet(nnx.Module):
    """Coupled audio-video U-Net. Predicts the noise of a pair (and a variance, `learn_sigma`)."""

    def __init__(self, spec: MMDiffusionSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        emb = spec.model_channels
        self.time_embed = nnx.List(
            [nnx.Linear(emb, emb, rngs=rngs), SiLU(), nnx.Linear(emb, emb, rngs=rngs)]
        )
        tower = _Tower(spec, rngs)
        self.input_blocks = nnx.List(tower.down())
        self.middle_blocks = nnx.List(tower.middle())
        self.output_blocks = nnx.List(tower.up())
        first, copies = spec.width(0), 1 + spec.learn_sigma
        self.video_out = nnx.List(
            [
                Normalization(spec.num_groups, first),
                SiLU(),
                VideoConv(first, copies * spec.video_channels, 3, zero_init=True, rngs=rngs),
            ]
        )
        self.audio_out = nnx.List(
            [
                Normalization(spec.num_groups, first),
                SiLU(),
                AudioConv(first, copies * spec.audio_channels, 3, "1d", zero_init=True, rngs=rngs),
            ]
        )

    def __call__(
        self,
        x_t: AV,
        t: Array,
        cond: None = None,
        *,
        shifts: Array | None = None,
        dropout_key: Array | None = None,
    ) -> AV:
        """Predict the noise of both modalities.

        Args:
          x_t: {"video": [b f h w c], "audio": [b l c]}; clean values are in [-1, 1]. With n
            levels, 2**(n-1) must divide h and w, and 4**(n-1) must divide l.
          t: timesteps [b], 0 .. T-1, shared by the modalities.
          cond: ignored, because the network is unconditional.
          shifts: from `draw_shifts`, int32 [len(spec.windows)]: a shift of 0 .. f - window for
            each cross-attention block; None for no shift.
          dropout_key: random key of the dropout; None for no dropout, as when sampling.

        Returns:
          float32 arrays of x_t's shapes; with `learn_sigma` they have twice the channels, and the
          noise comes first.

        Raises:
          ValueError: an input does not fit the network.
        """
        del cond
        self._check(x_t, shifts)
        spec = self.spec
        wave = sinusoidal_embedding(t, spec.model_channels, cos_first=True)
        context = Context(chain(self.time_embed, wave), shifts, dropout_key)
        dtype = jnp.dtype(spec.compute_dtype)
        initial = self.input_blocks[0][0]
        hidden = initial(x_t["video"].astype(dtype), x_t["audio"].astype(dtype))
        skips = [hidden]
        for layers in list(self.input_blocks)[1:]:
            hidden = self._run(layers, hidden, context)
            skips.append(hidden)
        hidden = self._run(self.middle_blocks, hidden, context)
        for layers in self.output_blocks:
            pairs = zip(hidden, skips.pop(), strict=True)
            joined = tuple(jnp.concatenate(pair, axis=-1) for pair in pairs)
            hidden = self._run(layers, joined, context)
        video, audio = (x.astype(jnp.float32) for x in hidden)
        return {"audio": chain(self.audio_out, audio), "video": chain(self.video_out, video)}

    def _run(
        self, layers: nnx.List, hidden: tuple[Array, ...], context: Context
    ) -> tuple[Array, ...]:
        for layer in layers:
            hidden = call_block(layer, self.spec.remat, *hidden, context)
        return hidden

    def _check(self, x_t: AV, shifts: Array | None) -> None:
        spec, poolings = self.spec, self.spec.num_levels - 1
        rules = {
            "video": ("[b f h w c]", spec.video_channels, VIDEO_POOL),
            "audio": ("[b l c]", spec.audio_channels, AUDIO_POOL["1d"]),
        }
        if x_t.keys() != rules.keys():
            raise ValueError(f"x_t has {sorted(x_t)}; it must have exactly {sorted(rules)}")
        for name, (form, channels, pool) in rules.items():
            shape = x_t[name].shape
            if len(shape) != len(form.split()) or shape[-1] != channels:
                raise ValueError(f"{name} has shape {shape}; it must be {form} with c={channels}")
            factors = [size**poolings for size in pool]
            if any(n % factor for n, factor in zip(shape[1:-1], factors, strict=True)):
                raise ValueError(
                    f"{name} has shape {shape}; {spec.num_levels} levels need {form} whose inner "
                    f"axes are multiples of {factors}: crop or pad it, or use fewer levels"
                )
        if shifts is not None and jnp.shape(shifts) != (len(spec.windows),):
            raise ValueError(
                f"shifts has shape {jnp.shape(shifts)}; it must hold one shift for each of the "
                f"{len(spec.windows)} cross-attention blocks: use draw_shifts"
            )


class _Tower:
    """Builder of the blocks in the order of execution, numbered as in the official code."""

    def __init__(self, spec: MMDiffusionSpec, rngs: nnx.Rngs):
        self.spec, self.rngs = spec, rngs
        self.dilation_step = 1  # counts up on the way down, and down again on the way up
        self.num_res = self.num_cross = 0
        self.width = spec.width(0)
        self.skips = [self.width]

    def down(self) -> list[nnx.List]:
        spec = self.spec
        initial = InitialBlock(
            spec.video_channels, spec.audio_channels, self.width, "1d", rngs=self.rngs
        )
        blocks: list[nnx.List] = [nnx.List([initial])]
        for level in range(spec.num_levels):
            for _ in range(spec.num_res_blocks):
                blocks.append(nnx.List(self._stage(self.width, level)))
                self.dilation_step += 1
                self.skips.append(self.width)
            if level < spec.num_levels - 1:
                blocks.append(nnx.List([self._res(self.width, self.width, resample="down")]))
                self.dilation_step += 1
                self.skips.append(self.width)
        return blocks

    def middle(self) -> list[nnx.Module]:
        attends = {"video_attention": True, "audio_attention": True}
        first = self._res(self.width, self.width, **attends)
        cross = [self._cross(None)] if self.spec.middle_cross_attention else []
        return [first, *cross, self._res(self.width, self.width, **attends)]

    def up(self) -> list[nnx.List]:
        blocks = []
        self.dilation_step -= 1
        for level in reversed(range(self.spec.num_levels)):
            for index in range(self.spec.num_res_blocks + 1):
                layers = self._stage(self.width + self.skips.pop(), level, up=True)
                self.dilation_step -= 1
                if level and index == self.spec.num_res_blocks:
                    layers.append(self._res(self.width, self.width, resample="up"))
                blocks.append(nnx.List(layers))
        return blocks

    def _stage(self, in_channels: int, level: int, *, up: bool = False) -> list[nnx.Module]:
        """Build a residual block, and its cross-attention if the level has one."""
        spec, factor = self.spec, 2**level
        self.width = spec.width(level)
        res = self._res(
            in_channels,
            self.width,
            video_attention=factor in spec.video_attention_resolutions,
            audio_attention=factor in spec.audio_attention_resolutions,
            up=up,
        )
        window = spec.window_at(level)
        return [res] if window is None else [res, self._cross(window, up=up)]

    def _res(self, in_channels: int, out_channels: int, **options) -> ResBlock:
        self.num_res += 1
        return ResBlock(
            in_channels,
            out_channels,
            self.spec,
            index=self.num_res - 1,
            dilation=2 ** (self.dilation_step % self.spec.dilation_period),
            rngs=self.rngs,
            **options,
        )

    def _cross(self, window: int | None, *, up: bool = False) -> CrossAttentionBlock:
        self.num_cross += 1
        return CrossAttentionBlock(
            self.width, self.spec, index=self.num_cross - 1, window=window, up=up, rngs=self.rngs
        )


def build(*, rngs: nnx.Rngs, **spec) -> MultimodalUNet:
    """Build the network for the registry of base models.

    It predicts eps itself, so it needs no noise schedule.

    Args:
      spec: fields of `MMDiffusionSpec`.
    """
    return MultimodalUNet(MMDiffusionSpec(**spec), rngs=rngs)

# SPDX-License-Identifier: Apache-2.0
"""Spec of MM-Diffusion's coupled U-Net: its options, their checks, and the released preset."""

import dataclasses

import jax
import jax.numpy as jnp

from mmdisco_jax.base_models.random_shift import check_window
from mmdisco_jax.nn.checks import check_positive
from mmdisco_jax.types import Array

# Kinds of blocks that the backward pass recomputes instead of storing their activations. The
# official code always has "attention"; "blocks" is its `use_checkpoint`.
REMAT = {
    "none": (),
    "attention": ("self_attention", "cross_attention"),
    "blocks": ("res_block", "cross_attention"),
}
# The official `channel_mult`, by the height of the picture in pixels.
CHANNEL_MULT = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
_SEQUENCES = (
    "channel_mult",
    "video_attention_resolutions",
    "audio_attention_resolutions",
    "cross_attention_resolutions",
    "cross_attention_windows",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMDiffusionSpec:
    """Sizes and options of the coupled U-Net; the defaults are those of the paper.

    Fields have the official names where there are any. A resolution is a factor of downsampling:
    level i has resolution 2**i. Each level halves height and width and quarters the audio's length.

    Attributes:
      video_channels, audio_channels: channels of the noisy input.
      model_channels: base width, and width of the time embedding.
      channel_mult: width of each level, as a multiple of model_channels; products are rounded down.
      num_res_blocks: residual blocks per level on the way down; the way up has one more.
      num_groups: groups of every group norm.
      video_attention_resolutions: levels with self-attention of the video, within each frame and
        then along time at each pixel. The middle always has it.
      audio_attention_resolutions: levels with self-attention of the audio. The middle always has
        it.
      cross_attention_resolutions: levels with random-shift cross-attention.
      cross_attention_windows: its window at each of these levels, in frames.
      cross_attention_shift: `draw_shifts` draws random shifts; otherwise it returns zeros.
      middle_cross_attention: cross-attention over all frames between the two middle blocks. The
        official code has it only if cross_attention_windows is [1, 4, 8], and drops it silently
        otherwise: set False to load a checkpoint with other windows.
      num_heads: heads of the self-attention.
      num_head_channels: width of a head of the cross-attention; None means num_heads heads.
      num_heads_upsample: num_heads on the way up; None means the same. The official code accepts
        this number and ignores it: leave None for its checkpoints.
      video_type: "2d+1d" or "3d" convolutions of the video.
      dilation_period: the audio dilation of block k is 2 ** (k % dilation_period); 1 for none.
      use_scale_shift_norm: the time embedding scales and shifts the norm instead of being added.
      resblock_updown: upsample on the way up. The official code never upsamples with False, so
        that only a U-Net with a single level can run.
      dropout: rate in [0, 1), applied only if the network is called with a key.
      learn_sigma: predict the variance, too, in further output channels.
      remat: a key of `REMAT`.
      compute_dtype: "float32" or "bfloat16". Parameters, norms, softmax, the time embedding and the
        last layers are always float32.

    Raises:
      ValueError: an option has an unknown value, or the sizes do not fit each other.
    """

    video_channels: int = 3
    audio_channels: int = 1
    model_channels: int = 128
    channel_mult: tuple[float, ...] = CHANNEL_MULT[64]
    num_res_blocks: int = 2
    num_groups: int = 32
    video_attention_resolutions: tuple[int, ...] = (2, 4, 8)
    audio_attention_resolutions: tuple[int, ...] = ()
    cross_attention_resolutions: tuple[int, ...] = (2, 4, 8)
    cross_attention_windows: tuple[int, ...] = (1, 4, 8)
    cross_attention_shift: bool = True
    middle_cross_attention: bool = True
    num_heads: int = 4
    num_head_channels: int | None = 64
    num_heads_upsample: int | None = None
    video_type: str = "2d+1d"
    dilation_period: int = 10
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    dropout: float = 0.1
    learn_sigma: bool = False
    remat: str = "none"
    compute_dtype: str = "float32"

    def __post_init__(self):
        for name in _SEQUENCES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_numbers()
        self._check_choices()
        self._check_resolutions()

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return len(self.channel_mult)

    def width(self, level: int) -> int:
        """Return the number of channels of a level."""
        return int(self.channel_mult[level] * self.model_channels)

    def window_at(self, level: int) -> int | None:
        """Return the cross-attention window of a level in frames; None if it has none."""
        windows = zip(self.cross_attention_resolutions, self.cross_attention_windows, strict=True)
        return dict(windows).get(2**level)

    def heads(self, *, up: bool) -> int:
        """Return the number of heads of the self-attention."""
        return self.num_heads_upsample or self.num_heads if up else self.num_heads

    def cross_heads(self, width: int, *, up: bool) -> int:
        """Return the number of heads of the cross-attention over `width` channels.

        Raises:
          ValueError: the width is no multiple of `num_head_channels`.
        """
        if self.num_head_channels is None:
            return self.heads(up=up)
        if width % self.num_head_channels:
            raise ValueError(
                f"num_head_channels {self.num_head_channels} must divide the width {width} of each "
                "level with cross-attention and of the middle; None takes num_heads instead"
            )
        return width // self.num_head_channels

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Windows of the cross-attention blocks in the order of execution; None is all frames."""
        levels = [(level, self.window_at(level)) for level in range(self.num_levels)]
        crossed = [window for _, window in levels if window is not None]
        down = [window for window in crossed for _ in range(self.num_res_blocks)]
        up = [window for window in reversed(crossed) for _ in range(self.num_res_blocks + 1)]
        return (*down, *[None] * self.middle_cross_attention, *up)

    def _check_numbers(self) -> None:
        check_positive(
            self,
            *("video_channels", "audio_channels", "model_channels", "num_res_blocks"),
            *("num_groups", "num_heads", "num_head_channels", "num_heads_upsample"),
            "dilation_period",
        )
        if not self.channel_mult or min(map(self.width, range(self.num_levels))) < 1:
            raise ValueError(
                f"channel_mult {self.channel_mult} times model_channels {self.model_channels} must "
                "give at least one level, and each at least one channel"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; a rate must be in [0, 1)")

    def _check_choices(self) -> None:
        for name, choices in (
            ("video_type", ("2d+1d", "3d")),
            ("remat", tuple(REMAT)),
            ("compute_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}")
        if not self.resblock_updown and self.num_levels > 1:
            raise ValueError(
                f"resblock_updown=False cannot have {self.num_levels} levels: nothing would "
                "up-sample to meet the skip connections; set resblock_updown=True"
            )

    def _check_resolutions(self) -> None:
        known = [2**level for level in range(self.num_levels)]
        for name in ("video_attention", "audio_attention", "cross_attention"):
            wanted = getattr(self, f"{name}_resolutions")
            if unknown := [resolution for resolution in wanted if resolution not in known]:
                raise ValueError(
                    f"{name}_resolutions has {unknown}, where no level is: the levels have the "
                    f"resolutions {known}; use these, or () for no attention"
                )
        if len(self.cross_attention_windows) != len(self.cross_attention_resolutions):
            raise ValueError(
                f"cross_attention_windows {self.cross_attention_windows} must give one window for "
                f"each of cross_attention_resolutions {self.cross_attention_resolutions}"
            )
        for window in self.cross_attention_windows:
            if window < 1:
                raise ValueError(f"cross_attention_windows has {window}; it must be at least 1")


# The released Landscape and AIST++ networks: 16 frames of 64 x 64 pixels, 25,600 samples of audio.
PRESETS = {"base64": MMDiffusionSpec()}


def draw_shifts(spec: MMDiffusionSpec, key: Array, num_frames: int) -> Array:
    """Draw a random shift for each cross-attention block, uniform in 0 .. num_frames - window.

    Returns:
      int32 [len(spec.windows)]; zeros if the spec has no random shift.

    Raises:
      ValueError: a window is longer than the clip.
    """
    windows = [num_frames if window is None else window for window in spec.windows]
    for window in windows:
        check_window(window, num_frames)
    limits = jnp.asarray([num_frames - window for window in windows], jnp.int32)
    if not spec.cross_attention_shift:
        return jnp.zeros_like(limits)
    return jax.random.randint(key, limits.shape, 0, limits + 1)

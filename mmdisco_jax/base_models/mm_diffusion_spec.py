# SPDX-License-Identifier: Apache-2.0
"""The options of MM-Diffusion's coupled U-Net, their rules, and the paper's choice."""

import dataclasses

import jax
import jax.numpy as jnp

from mmdisco_jax.base_models.random_shift import check_window
from mmdisco_jax.types import Array

# What the backward pass computes again instead of keeping. "attention" is what the official code
# always does, "blocks" its `use_checkpoint`.
REMAT = {
    "none": (),
    "attention": ("self_attention", "cross_attention"),
    "blocks": ("res_block", "cross_attention"),
}
# The official multiples of the first level's width, by the picture's height in pixels.
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
    """Sizes and options, under the official names where there is one; defaults are the paper's.

    Resolutions are given as factors of downsampling: level i stands at 2**i (each level halves
    height and width and quarters the audio's length).

    Attributes:
      video_channels, audio_channels: channels of the noisy input.
      model_channels: width of a level of multiple 1, and size of the time embedding.
      channel_mult: each level's multiple; the product with model_channels is rounded down.
      num_res_blocks: residual blocks per level on the way down; one more on the way up.
      num_groups: groups of every group norm.
      video_attention_resolutions: levels whose video attends within frames, then within pixels.
      audio_attention_resolutions: levels whose audio attends itself. The middle always does both.
      cross_attention_resolutions, cross_attention_windows: levels with random-shift attention, and
        its window in frames at each.
      cross_attention_shift: whether `draw_shifts` draws, or gives zeros.
      middle_cross_attention: attention over all frames between the two middle blocks. The official
        code has it only where cross_attention_windows is [1, 4, 8] and drops it silently with any
        other; to load a checkpoint of such windows, set False.
      num_heads: heads of the attention within a modality.
      num_head_channels: width of a head of the attention across; None: num_heads heads.
      num_heads_upsample: num_heads on the way up; None: the same. The official code accepts this
        number and ignores it: leave None for its checkpoints.
      video_type: "2d+1d" or "3d" convolutions of the video.
      dilation_period: the k-th block's audio dilation is 2 ** (k % dilation_period); 1: none.
      use_scale_shift_norm: the time scales and shifts normalised features; otherwise it is added.
      resblock_updown: up-sample on the way up. The official False never does, so that only a U-Net
        of a single level can run.
      dropout: rate in [0, 1), applied only where the model is called with a key.
      learn_sigma: twice the output channels, the second half for the variance.
      remat: a key of REMAT.
      compute_dtype: "float32" or "bfloat16"; norms, softmax, the time embedding, the parameters and
        the last layers stay float32.
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
        return len(self.channel_mult)

    def width(self, level: int) -> int:
        return int(self.channel_mult[level] * self.model_channels)

    def window_at(self, level: int) -> int | None:
        """The cross-attention window of a level in frames; None if it has no cross-attention."""
        windows = zip(self.cross_attention_resolutions, self.cross_attention_windows, strict=True)
        return dict(windows).get(2**level)

    def heads(self, *, up: bool) -> int:
        """Heads of the attention within a modality."""
        return self.num_heads_upsample or self.num_heads if up else self.num_heads

    def cross_heads(self, width: int, *, up: bool) -> int:
        """Heads of the attention across modalities; ValueError if their width does not fit."""
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
        """Window of each cross-attention block in the order of execution; None is all frames."""
        levels = [(level, self.window_at(level)) for level in range(self.num_levels)]
        crossed = [window for _, window in levels if window is not None]
        down = [window for window in crossed for _ in range(self.num_res_blocks)]
        up = [window for window in reversed(crossed) for _ in range(self.num_res_blocks + 1)]
        return (*down, *[None] * self.middle_cross_attention, *up)

    def _check_numbers(self) -> None:
        for name in (
            *("video_channels", "audio_channels", "model_channels", "num_res_blocks"),
            *("num_groups", "num_heads", "num_head_channels", "num_heads_upsample"),
            "dilation_period",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
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
                    f"{name}_resolutions has {unknown}, where no level is: the levels stand at "
                    f"{known}; none at all is ()"
                )
        if len(self.cross_attention_windows) != len(self.cross_attention_resolutions):
            raise ValueError(
                f"cross_attention_windows {self.cross_attention_windows} must give one window for "
                f"each of cross_attention_resolutions {self.cross_attention_resolutions}"
            )
        for window in self.cross_attention_windows:
            if window < 1:
                raise ValueError(f"cross_attention_windows has {window}; it must be at least 1")


# The network of the released Landscape and AIST++ files: 16 frames of 64 x 64, 25,600 samples.
PRESETS = {"base64": MMDiffusionSpec()}


def draw_shifts(spec: MMDiffusionSpec, key: Array, num_frames: int) -> Array:
    """A shift for each cross-attention block, int32, uniform in 0 .. num_frames - its window.

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

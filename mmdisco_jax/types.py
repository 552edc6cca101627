# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the project: what flows between its parts.

Arrays are channel-last: video `[b f h w c]`, mel or audio latent `[b l m c]`, waveform `[b l c]`,
text `[b s d]`. `t` is an int32 noise level `[b]` in 0..T-1, and a prediction is the noise `eps`
unless its name says otherwise.
"""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
# One entry per modality, e.g. {"audio": [b l m c], "video": [b f h w c]}. Nothing in the library
# counts on these names or on there being two of them.
AV = dict[str, Array]
Cond = Any
# (x_t, t, cond) -> eps
DenoiseFn = Callable[[AV, Array, Cond], AV]
# (x_t, t, cond) -> h [b], the log-ratio of the joint density to the product of the base densities
LogRatioFn = Callable[[AV, Array, Cond], Array]

Params = Any
# Before a modality's name: the embedding of its text, in examples and batches.
TEXT = "text_"

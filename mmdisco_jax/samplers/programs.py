# SPDX-License-Identifier: Apache-2.0
"""A sampling as two compiled programs: its beginning, and a stretch of steps that is called again.

Between stretches the host can tell how far it is, at the price of no wait: it looks at the stretch
before while the device works on the next.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mmdisco_jax.types import AV


def stretch_of(num_steps: int) -> int:
    """Steps a call: the largest divisor of their number that is at most a tenth of it, or 1."""
    return max(d for d in range(1, max(1, num_steps // 10) + 1) if num_steps % d == 0)


@dataclasses.dataclass(frozen=True)
class Programs:
    """begin(*args) -> carry; proceed(*args, carry, first step int32 []) -> carry, `stretch` later.

    Both jitted, or compiled by `compile`; a carry is that of `samplers.sample.Sampling`.
    """

    begin: Any
    proceed: Any
    num_steps: int
    stretch: int

    def compile(self, *args: Any) -> "Programs":
        """The same, compiled for arguments of these shapes and shardings alone."""
        begin = self.begin.lower(*args).compile()
        carry = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            begin.out_info,
            begin.output_shardings,
        )
        proceed = self.proceed.lower(*args, carry, np.int32(0)).compile()

        def go_on(*args: Any) -> Any:  # a stretch must end as it began, wherever XLA left it
            return jax.device_put(proceed(*args), begin.output_shardings)

        return dataclasses.replace(self, begin=begin, proceed=go_on)

    def __call__(self, *args: Any, on_steps: Callable[[int], Any] | None = None) -> AV:
        """Samples {m: [b ...]}; `on_steps` is told of each number of steps that are done."""
        carry = self.begin(*args)
        for first in range(0, self.num_steps, self.stretch):
            before, carry = carry, self.proceed(*args, carry, np.int32(first))
            if on_steps and first:
                jax.block_until_ready(before)
                on_steps(self.stretch)
        if on_steps:
            jax.block_until_ready(carry)
            on_steps(self.stretch)
        return carry[0]

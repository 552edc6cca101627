# SPDX-License-Identifier: Apache-2.0
"""A small metric outside the package, named as `package.module:attribute`."""

import dataclasses

import numpy as np

from mmdisco_jax.metrics import api, bootstrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loudness:
    """Mean level of the sound, as a share of full scale."""

    context: api.Context
    protocol: str = "loudness_v1"

    def init(self) -> api.State:
        return {"rows": np.zeros((0, 1))}

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        level = np.abs(api.clips_of(batch)[1].astype(np.float64)).mean(1, keepdims=True) / 32768
        return self.merge(state, {"rows": level})

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        rows = api.canonical_rows(state["rows"], self.protocol)
        value, low, high = bootstrap.ratio(
            rows[:, 0], replicates=self.context.replicates, seed=self.context.seed
        )
        return (
            api.Result(
                name="loudness",
                protocol=self.protocol,
                value=value,
                low=low,
                high=high,
                n=len(rows),
                better="neither",
            ),
        )


def make(context: api.Context) -> Loudness:
    return Loudness(context=context)

# SPDX-License-Identifier: Apache-2.0
"""A metric from outside that is a network: its weights are a file that the config names."""

import dataclasses

import numpy as np

from mmdisco_jax.metrics import api, bootstrap

NAME = "warmth"  # in config.evaluate.weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warmth:
    """Mean of the colours of a clip, weighted by the file's vector [3]."""

    context: api.Context
    vector: np.ndarray
    protocol: str = "warmth_v1"

    def init(self) -> api.State:
        return {"rows": np.zeros((0, 1))}

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        colours = api.clips_of(batch)[0].mean((1, 2, 3)) / 255
        return self.merge(state, {"rows": colours @ self.vector[:, None]})

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        column = api.canonical_rows(state["rows"], self.protocol)[:, 0]
        value, low, high = bootstrap.ratio(
            column, replicates=self.context.replicates, seed=self.context.seed
        )
        result = api.Result(
            name=NAME, protocol=self.protocol, value=value, low=low, high=high, n=len(column)
        )
        return (result,)


def make(context: api.Context) -> Warmth:
    return Warmth(context=context, vector=np.load(context.require_weights(NAME)))

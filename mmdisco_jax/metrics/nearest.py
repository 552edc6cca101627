# SPDX-License-Identifier: Apache-2.0
"""Memorisation: distance of generated clips to their nearest training clips.

For each generated clip, on the features of `features`, the distance to its nearest reference clip
is divided by the median distance from a reference clip to its nearest other one. Real held-out
clips score about 1, copies score 0.
"""

import dataclasses
import functools

import numpy as np
from scipy.spatial import KDTree

from mmdisco_jax.metrics import api, bootstrap, features

COPY_RATIO = 0.1  # nearer than a tenth of the usual distance counts as a copy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Nearest-neighbour ratio and share of copies of one modality.

    Results: the mean ratio (`nearest_*`, near 1 is healthy) and the share of copies (`copies_*`).
    """

    protocol: str
    context: api.Context
    modality: str
    projection: features.Projection
    tree: KDTree
    usual: float

    def init(self) -> api.State:
        return {"rows": np.zeros((0, 1))}

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        rows = features.rows_of(batch, self.modality, self.context.sample_rate_hz)
        found = self.projection(rows)
        return self.merge(state, {"rows": self.tree.query(found)[0][:, None] / self.usual})

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        ratios = api.canonical_rows(state["rows"], self.protocol)[:, 0]
        columns = {"nearest": (ratios, "neither"), "copies": (ratios < COPY_RATIO, "lower")}
        results = []
        for name, (column, better) in columns.items():
            value, low, high = bootstrap.ratio(
                column, replicates=self.context.replicates, seed=self.context.seed
            )
            results.append(
                api.Result(
                    name=f"{name}_{self.modality}",
                    protocol=self.protocol,
                    value=value,
                    low=low,
                    high=high,
                    n=len(ratios),
                    better=better,
                )
            )
        return tuple(results)


def _make(context: api.Context, *, modality: str) -> Memorisation:
    protocol = f"memorisation_{modality}_v1"
    rows = features.rows_of(context.require_reference(protocol), modality, context.sample_rate_hz)
    projection = features.fit(rows)
    tree = KDTree(projection(rows))
    usual = float(np.median(tree.query(tree.data, k=2)[0][:, 1]))
    if usual == 0:
        raise ValueError("most reference clips are duplicates of another: no scale to compare with")
    return Memorisation(
        protocol=protocol,
        context=context,
        modality=modality,
        projection=projection,
        tree=tree,
        usual=usual,
    )


memorisation_video = functools.partial(_make, modality="video")
memorisation_audio = functools.partial(_make, modality="audio")

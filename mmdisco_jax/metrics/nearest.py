# SPDX-License-Identifier: Apache-2.0
"""Memorisation: distance of generated clips to their nearest training clips.

Version 2 searches the training clips, and for pictures their mirror images too, since training may
mirror them. For each generated clip the distance to the nearest of them is divided by the usual
one, the median over held-out real clips. So held-out clips score about 1 and copies 0; a model that
copies scores below what is real, and one whose clips look like nothing real scores above.

Distances are taken on the features of `features`: 24 principal axes of training clips and the
distance from their space. They are never larger than those of all pixels or of the whole log-mel,
so that no copy is missed, and clips that differ only in what these features do not see may count
as copies.

Version 1 searched the reference clips, whatever they were, and took its scale from the distances
between them. Held-out clips as its reference say nothing about memorisation.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial import KDTree

from mmdisco_jax.metrics import api, bootstrap, features

COPY_RATIO = 0.1  # nearer than a tenth of the usual distance counts as a copy
SAME = 1e-4  # of the spread of all clips: the distance of two that differ by rounding only
AXES_CLIPS = 512  # training clips that the principal axes are fitted on: the first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Nearest-neighbour ratio and share of copies of one modality.

    Results: the mean ratio (`nearest_*`, near 1 is healthy) and the share of copies (`copies_*`).

    nearest: a raw batch -> distance of each clip to its nearest searched one, float64 [b].
    usual: that of a real clip. note: what was searched. searched: how many.
    """

    protocol: str
    context: api.Context
    modality: str
    nearest: Callable[[api.Batch], np.ndarray]
    usual: float
    searched: int
    note: str

    def init(self) -> api.State:
        return {"rows": np.zeros((0, 1))}

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        return self.merge(state, {"rows": self.nearest(batch)[:, None] / self.usual})

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        ratios = api.canonical_rows(state["rows"], self.protocol)[:, 0]
        results = []
        for name, column in self._columns(ratios).items():
            value, low, high = bootstrap.ratio(
                column, replicates=self.context.replicates, seed=self.context.seed
            )
            results.append(
                api.Result(
                    name=name,
                    protocol=self.protocol,
                    value=value,
                    low=low,
                    high=high,
                    n=len(ratios),
                    better="lower" if name.startswith("copies") else "neither",
                    detail={"n_searched": float(self.searched)},
                    note=self.note,
                )
            )
        return tuple(results)

    def weighted(self, state: api.State) -> tuple[api.Weighted, ...]:
        columns = self._columns(state["rows"][:, 0])
        return tuple(api.weighted_mean(name, column) for name, column in columns.items())

    def _columns(self, ratios: np.ndarray) -> dict[str, np.ndarray]:
        return {
            f"nearest_{self.modality}": ratios,
            f"copies_{self.modality}": (ratios < COPY_RATIO).astype(np.float64),
        }


def _views(batch: api.Batch, modality: str, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Rows of a batch, and for pictures those of its mirror image."""
    yield features.rows_of(batch, modality, sample_rate_hz)
    if modality == "video":
        mirrored = {**batch, "video": np.asarray(batch["video"])[..., ::-1, :]}
        yield features.rows_of(mirrored, modality, sample_rate_hz)


def _search(context: api.Context, protocol: str, modality: str):
    """Reads the training clips batch by batch: `nearest`, their number and their spread."""
    waiting, found, projection = [], [], None
    for batch in context.require_training(protocol):
        rows = features.rows_of(batch, modality, context.sample_rate_hz)
        if projection is None:
            waiting.append(rows)
            if sum(map(len, waiting)) < AXES_CLIPS:
                continue
            rows = np.concatenate(waiting)
            projection, waiting = _axes(rows), []
        found.append(projection(rows))
    if waiting:
        rows = np.concatenate(waiting)
        projection = _axes(rows)
        found.append(projection(rows))
    if projection is None:
        raise ValueError(
            "there is no training clip to search: pass training=a list of batches, which can be "
            "read by several metrics; an iterator is empty after the first"
        )
    axes, tree = projection, KDTree(np.concatenate(found))

    def nearest(batch: api.Batch) -> np.ndarray:
        views = _views(batch, modality, context.sample_rate_hz)
        return np.min([tree.query(axes(rows))[0] for rows in views], 0)

    return nearest, tree.n, max(float(np.sqrt(tree.data.var(0).sum())), float(axes.outside or 0))


def _axes(rows: np.ndarray) -> features.Projection:
    """At most 24 axes; of few clips fewer, since the distance from their space is the rest."""
    some = rows[:AXES_CLIPS]
    return features.fit_with_outside(some, min(features.DIMENSIONS, min(some.shape) - 1))


def _make(context: api.Context, *, modality: str) -> Memorisation:
    protocol = f"memorisation_{modality}_v2"
    reference = context.require_reference(protocol)
    nearest, count, spread = _search(context, protocol, modality)
    usual = float(np.median(nearest(reference)))
    if usual < SAME * spread:
        raise ValueError(
            "most held-out clips are copies of training clips, so there is no usual distance: "
            "keep clips of the same recording in one split"
        )
    held_out = len(reference["video"])
    return Memorisation(
        protocol=protocol,
        context=context,
        modality=modality,
        nearest=nearest,
        usual=usual,
        searched=count,
        note=f"{count} training clips searched; 1 is the median of {held_out} held-out clips",
    )


def _make_v1(context: api.Context, *, modality: str) -> Memorisation:
    protocol = f"memorisation_{modality}_v1"
    rows = features.rows_of(context.require_reference(protocol), modality, context.sample_rate_hz)
    projection = features.fit(rows)
    tree = KDTree(projection(rows))
    usual = float(np.median(tree.query(tree.data, k=2)[0][:, 1]))
    if usual == 0:
        raise ValueError("most reference clips are duplicates of another: no scale to compare with")

    def nearest(batch: api.Batch) -> np.ndarray:
        found = projection(features.rows_of(batch, modality, context.sample_rate_hz))
        return tree.query(found)[0]

    return Memorisation(
        protocol=protocol,
        context=context,
        modality=modality,
        nearest=nearest,
        usual=usual,
        searched=len(rows),
        note=f"{len(rows)} reference clips searched, and no training clip",
    )


memorisation_video = functools.partial(_make, modality="video")
memorisation_audio = functools.partial(_make, modality="audio")
memorisation_video_v1 = functools.partial(_make_v1, modality="video")
memorisation_audio_v1 = functools.partial(_make_v1, modality="audio")

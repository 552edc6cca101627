# SPDX-License-Identifier: Apache-2.0
"""Frechet and kernel distances of generated clips to real ones on weight-free features.

Each measures one modality. They are named `proxy_*` because the features are principal axes of the
reference itself (see `features`): good for comparing runs on one dataset, not comparable with
published FVD, KVD, FAD or KAD.

Version 2 fits the axes, and the scale of a kernel, on the first half of the reference, and compares
with the second, which had no part in choosing them. What lies outside the 24 axes is seen as one
more feature, a clip's distance from their space: a set without fine motion is far away, while
noise of the right energy in the place of fine motion is not told from it. Version 1 had the 24
axes alone, fitted on all of the reference, and saw nothing else.

A distance has a floor above zero that depends on the number of clips: `metrics.evaluation` cuts all
sets to one number, so that held-out real clips beside them show the floor.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from mmdisco_jax.metrics import api, bootstrap, features, frechet, kernel

# The estimate to report, and a plug-in estimate as a function of weights [r, n] and [r, m].
Estimate = tuple[float, bootstrap.Statistic]
# Features of the reference [m, k] and of the generated [n, k] -> their distance.
Distance = Callable[[np.ndarray, np.ndarray], Estimate]
# Features of real clips that set the scale of a distance -> the distance.
Chosen = Callable[[np.ndarray], Distance]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetDistance:
    """Distance between generated and reference features; the projection is fitted on real clips.

    reference: features float64 [m, k] of the real clips. has_ratio: see `api.Weighted`.
    """

    protocol: str
    context: api.Context
    modality: str
    distance: Distance
    projection: features.Projection
    reference: np.ndarray
    has_ratio: bool

    @property
    def min_clips(self) -> int:
        """Fewest clips of a set: one more than there are features, or two for version 1."""
        return 2 if self.projection.outside is None else self.projection.width + 1

    @property
    def equal_numbers(self) -> bool:
        """True if values may be compared only for sets of the same number of clips."""
        return self.projection.outside is not None

    def init(self) -> api.State:
        return {"rows": np.zeros((0, self.reference.shape[1]))}

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        rows = features.rows_of(batch, self.modality, self.context.sample_rate_hz)
        return self.merge(state, {"rows": self.projection(rows)})

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        rows = api.canonical_rows(state["rows"], self.protocol)
        self._check(rows)
        estimate, weighted = self.distance(self.reference, rows)
        value, low, high = bootstrap.of_distance(
            weighted,
            (len(rows), len(self.reference)),
            replicates=min(self.context.replicates, bootstrap.MAX_REPLICATES),
            seed=self.context.seed,
            unbiased=estimate,
        )
        return (
            api.Result(
                name=self._name,
                protocol=self.protocol,
                value=value,
                low=low,
                high=high,
                n=len(rows),
                better="lower",
                detail={"n_reference": float(len(self.reference))},
                note=f"compared with {len(self.reference)} real clips",
            ),
        )

    def weighted(self, state: api.State) -> tuple[api.Weighted, ...]:
        self._check(state["rows"])
        value, of = self.distance(self.reference, state["rows"])
        return (
            api.Weighted(
                name=self._name,
                of=of,
                value=value,
                n=len(state["rows"]),
                num_reference=len(self.reference),
                has_ratio=self.has_ratio,
            ),
        )

    @property
    def _name(self) -> str:
        return self.protocol.rsplit("_v", 1)[0]

    def _check(self, rows: np.ndarray) -> None:
        if len(rows) < self.min_clips:
            raise ValueError(
                f"{len(rows)} clips are too few for {self.projection.width} features: make "
                f"{self.min_clips} or more"
            )


def frechet_to(_: np.ndarray) -> Distance:
    """Frechet distance of the Gaussians of two sets."""

    def between(reference: np.ndarray, generated: np.ndarray) -> Estimate:
        value = frechet.frechet_distance(*frechet.gaussian(reference), *frechet.gaussian(generated))
        return value, frechet.weighted_distance(reference, generated)

    return between


def polynomial_to(scale: np.ndarray) -> Distance:
    """Squared discrepancy with KVD's kernel, on features in units of the spread of `scale`.

    The kernel's constant 1 supposes features of order one; pixels summed along an axis are not.
    """
    unit = np.sqrt(scale.var(0).mean())
    return lambda reference, generated: kernel.mmd_squared(
        reference / unit, generated / unit, kernel.polynomial_kernel
    )


def rbf_to(scale: np.ndarray) -> Distance:
    """Squared discrepancy with KAD's kernel and the bandwidth of `scale`, times 100."""
    of = kernel.rbf_kernel(kernel.median_bandwidth(scale))

    def between(reference: np.ndarray, generated: np.ndarray) -> Estimate:
        value, weighted = kernel.mmd_squared(reference, generated, of)
        return kernel.KAD_SCALE * value, lambda *weights: kernel.KAD_SCALE * weighted(*weights)

    return between


def _make(
    context: api.Context,
    *,
    protocol: str,
    modality: str,
    distance: Callable[[np.ndarray], Distance],
) -> SetDistance:
    rows = features.rows_of(context.require_reference(protocol), modality, context.sample_rate_hz)
    if protocol.endswith("_v1"):
        projection, chosen = features.fit(rows), rows
    else:
        half = len(rows) // 2
        least = features.DIMENSIONS + 2
        if half < least:
            raise ValueError(
                f"{len(rows)} reference clips are too few: half of them give the axes, the other "
                f"half are compared with, and {features.DIMENSIONS + 1} features need {least} "
                f"clips in each; give {2 * least} or more"
            )
        chosen, rows = rows[:half], rows[half:]
        projection = features.fit_with_outside(chosen)
    return SetDistance(
        protocol=protocol,
        context=context,
        modality=modality,
        distance=distance(projection(chosen)),
        projection=projection,
        reference=projection(rows),
        has_ratio=distance is frechet_to,
    )


def _versions(name: str, modality: str, distance: Chosen):
    return (
        functools.partial(_make, protocol=f"{name}_v{n}", modality=modality, distance=distance)
        for n in (1, 2)
    )


frechet_video_v1, frechet_video = _versions("proxy_frechet_video", "video", frechet_to)
frechet_audio_v1, frechet_audio = _versions("proxy_frechet_audio", "audio", frechet_to)
kernel_video_v1, kernel_video = _versions("proxy_kvd_video", "video", polynomial_to)
kernel_audio_v1, kernel_audio = _versions("proxy_kad_audio", "audio", rbf_to)

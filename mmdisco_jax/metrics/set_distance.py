# SPDX-License-Identifier: Apache-2.0
"""Frechet and kernel distances of generated clips to real ones on weight-free features.

Each measures one modality. They are named `proxy_*` because the features are principal axes of the
reference itself (see `features`): good for comparing runs on one dataset, not
comparable with published FVD, KVD, FAD or KAD.
A distance has a floor above zero that depends on the number of clips: report the same number of
held-out real clips beside it.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from mmdisco_jax.metrics import api, bootstrap, features, frechet, kernel

# features of the reference [m, k] -> (features of the generated [n, k] -> (repeat counts [n] ->
# distance))
Distance = Callable[[np.ndarray], Callable[[np.ndarray], Callable[[np.ndarray], float]]]
MAX_REPLICATES = 200  # each replicate costs an eigendecomposition


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetDistance:
    """Distance between generated and reference features; the projection is fitted on the reference.

    reference: features float64 [m, k] of the real clips.
    """

    protocol: str
    context: api.Context
    modality: str
    distance: Distance
    projection: features.Projection
    reference: np.ndarray

    def init(self) -> api.State:
        return {"rows": np.zeros((0, self.reference.shape[1]))}

    def update(self, state: api.State, batch: api.Batch) -> api.State:
        return self.merge(
            state,
            {
                "rows": self.projection(
                    features.rows_of(batch, self.modality, self.context.sample_rate_hz)
                )
            },
        )

    def merge(self, left: api.State, right: api.State) -> api.State:
        return api.merge_rows(left, right)

    def compute(self, state: api.State) -> tuple[api.Result, ...]:
        rows = api.canonical_rows(state["rows"], self.protocol)
        value, low, high = bootstrap.weighted(
            self.distance(self.reference)(rows),
            len(rows),
            replicates=min(self.context.replicates, MAX_REPLICATES),
            seed=self.context.seed,
        )
        return (
            api.Result(
                name=self.protocol.rsplit("_v", 1)[0],
                protocol=self.protocol,
                value=value,
                low=low,
                high=high,
                n=len(rows),
                better="lower",
                detail={"n_reference": float(len(self.reference))},
            ),
        )


def frechet_to(reference: np.ndarray) -> Callable[[np.ndarray], Callable[[np.ndarray], float]]:
    """Frechet distance to the reference's Gaussian."""
    real = frechet.gaussian(reference)
    return lambda generated: (
        lambda counts: frechet.frechet_distance(*real, *frechet.gaussian(generated, counts))
    )


def polynomial_to(reference: np.ndarray) -> Callable[[np.ndarray], Callable[[np.ndarray], float]]:
    """Squared discrepancy with KVD's kernel, on features in units of the reference's spread.

    The kernel's constant 1 supposes features of order one; pixels summed along an axis are not.
    """
    unit = np.sqrt(reference.var(0).mean())
    return lambda generated: kernel.mmd_squared(
        reference / unit, generated / unit, kernel.polynomial_kernel
    )[1]


def rbf_to(reference: np.ndarray) -> Callable[[np.ndarray], Callable[[np.ndarray], float]]:
    """Squared discrepancy with KAD's kernel and bandwidth, times 100."""
    of = kernel.rbf_kernel(kernel.median_bandwidth(reference))

    def on(generated: np.ndarray) -> Callable[[np.ndarray], float]:
        weighted = kernel.mmd_squared(reference, generated, of)[1]
        return lambda counts: kernel.KAD_SCALE * weighted(counts)

    return on


def _make(context: api.Context, *, protocol: str, modality: str, distance: Distance) -> SetDistance:
    rows = features.rows_of(context.require_reference(protocol), modality, context.sample_rate_hz)
    projection = features.fit(rows)
    return SetDistance(
        protocol=protocol,
        context=context,
        modality=modality,
        distance=distance,
        projection=projection,
        reference=projection(rows),
    )


frechet_video = functools.partial(
    _make, protocol="proxy_frechet_video_v1", modality="video", distance=frechet_to
)
frechet_audio = functools.partial(
    _make, protocol="proxy_frechet_audio_v1", modality="audio", distance=frechet_to
)
kernel_video = functools.partial(
    _make, protocol="proxy_kvd_video_v1", modality="video", distance=polynomial_to
)
kernel_audio = functools.partial(
    _make, protocol="proxy_kad_audio_v1", modality="audio", distance=rbf_to
)

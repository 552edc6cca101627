# SPDX-License-Identifier: Apache-2.0
"""Metrics of generated clips. Each name is a factory `Context -> Metric` (see `api`).

`av_align` is the 2025-02 version; ask for the numbered names to compare with other papers.
"""

from mmdisco_jax.registry import Registry

METRICS = Registry(
    "metric",
    {
        "av_align": "mmdisco_jax.metrics.av_align:make_v2",
        "av_align_v1": "mmdisco_jax.metrics.av_align:make_v1",
        "av_align_v2": "mmdisco_jax.metrics.av_align:make_v2",
        "av_align_v3": "mmdisco_jax.metrics.av_align:make_v3",
        "av_align_v4": "mmdisco_jax.metrics.av_align:make_v4",
        "bounce": "mmdisco_jax.worlds.bounce.measures:make",
        "memorisation_audio": "mmdisco_jax.metrics.nearest:memorisation_audio",
        "memorisation_video": "mmdisco_jax.metrics.nearest:memorisation_video",
        "proxy_frechet_audio": "mmdisco_jax.metrics.set_distance:frechet_audio",
        "proxy_frechet_video": "mmdisco_jax.metrics.set_distance:frechet_video",
        "proxy_kad_audio": "mmdisco_jax.metrics.set_distance:kernel_audio",
        "proxy_kvd_video": "mmdisco_jax.metrics.set_distance:kernel_video",
    },
)

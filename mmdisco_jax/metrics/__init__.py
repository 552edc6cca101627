# SPDX-License-Identifier: Apache-2.0
"""Metrics of generated clips. Each name is a factory `Context -> Metric` (see `api`).

A name without a number is the newest version, and `av_align` the one of 2025-02; the numbered names
are for comparing with other papers or with numbers that were measured earlier.
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
        "memorisation_audio_v1": "mmdisco_jax.metrics.nearest:memorisation_audio_v1",
        "memorisation_audio_v2": "mmdisco_jax.metrics.nearest:memorisation_audio",
        "memorisation_video": "mmdisco_jax.metrics.nearest:memorisation_video",
        "memorisation_video_v1": "mmdisco_jax.metrics.nearest:memorisation_video_v1",
        "memorisation_video_v2": "mmdisco_jax.metrics.nearest:memorisation_video",
        "proxy_frechet_audio": "mmdisco_jax.metrics.set_distance:frechet_audio",
        "proxy_frechet_audio_v1": "mmdisco_jax.metrics.set_distance:frechet_audio_v1",
        "proxy_frechet_audio_v2": "mmdisco_jax.metrics.set_distance:frechet_audio",
        "proxy_frechet_video": "mmdisco_jax.metrics.set_distance:frechet_video",
        "proxy_frechet_video_v1": "mmdisco_jax.metrics.set_distance:frechet_video_v1",
        "proxy_frechet_video_v2": "mmdisco_jax.metrics.set_distance:frechet_video",
        "proxy_kad_audio": "mmdisco_jax.metrics.set_distance:kernel_audio",
        "proxy_kad_audio_v1": "mmdisco_jax.metrics.set_distance:kernel_audio_v1",
        "proxy_kad_audio_v2": "mmdisco_jax.metrics.set_distance:kernel_audio",
        "proxy_kvd_video": "mmdisco_jax.metrics.set_distance:kernel_video",
        "proxy_kvd_video_v1": "mmdisco_jax.metrics.set_distance:kernel_video_v1",
        "proxy_kvd_video_v2": "mmdisco_jax.metrics.set_distance:kernel_video",
    },
)

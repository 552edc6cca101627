# SPDX-License-Identifier: Apache-2.0
"""Config sections to objects: the only reader of a ConfigDict, and the product's wiring."""

from mmdisco_jax.build.codecs import codecs, compiled_encoders, encoders
from mmdisco_jax.build.data import (
    clips,
    data_dir,
    fixed_clips,
    flip_probability,
    latents_key,
    training_examples,
    window,
)
from mmdisco_jax.build.levels import loss_memory
from mmdisco_jax.build.models import (
    base_digests,
    base_model,
    base_models,
    bases,
    clip_shapes,
    denoise_fn,
    discriminator,
    log_ratio_fn,
    pair_model,
    sample_shapes,
)
from mmdisco_jax.build.provenance import schedule_record
from mmdisco_jax.build.sampling import (
    clip_spec,
    discriminator_params,
    is_guided,
    require_files,
    sampler,
    variant_names,
    variant_settings,
)
from mmdisco_jax.build.sections import Config, schedules
from mmdisco_jax.build.tasks import (
    base_loss,
    discriminator_loss,
    fakes,
    joint_loss,
    loop,
    optimizer,
    start_params,
    training_task,
)
from mmdisco_jax.build.texts import texts
from mmdisco_jax.build.upscaling import (
    SUPER_RESOLUTION,
    super_resolution,
    super_resolution_loss,
    super_resolution_model,
    super_resolution_pairs,
    super_resolution_params,
)

__all__ = [
    "SUPER_RESOLUTION",
    "Config",
    "base_digests",
    "base_loss",
    "base_model",
    "base_models",
    "bases",
    "clip_shapes",
    "clip_spec",
    "clips",
    "codecs",
    "compiled_encoders",
    "data_dir",
    "denoise_fn",
    "discriminator",
    "discriminator_loss",
    "discriminator_params",
    "encoders",
    "fakes",
    "fixed_clips",
    "flip_probability",
    "is_guided",
    "joint_loss",
    "latents_key",
    "log_ratio_fn",
    "loop",
    "loss_memory",
    "optimizer",
    "pair_model",
    "require_files",
    "sample_shapes",
    "sampler",
    "schedule_record",
    "schedules",
    "start_params",
    "super_resolution",
    "super_resolution_loss",
    "super_resolution_model",
    "super_resolution_pairs",
    "super_resolution_params",
    "texts",
    "training_examples",
    "training_task",
    "variant_names",
    "variant_settings",
    "window",
]

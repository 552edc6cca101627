# SPDX-License-Identifier: Apache-2.0
"""Config sections to networks and their weights."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.joint import JOINT, JointModel
from mmdisco_jax.base_models.text_unet import TextUNet
from mmdisco_jax.build.codecs import decoded_shape
from mmdisco_jax.build.pretrained import (
    digest as pretrained_digest,
)
from mmdisco_jax.build.pretrained import (
    is_pretrained,
    load_base,
    pretrained_base,
)
from mmdisco_jax.build.provenance import check_schedules
from mmdisco_jax.build.sections import Config, named, schedules
from mmdisco_jax.discriminator import DISCRIMINATORS
from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.nn.init import definition
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.training.weights import digest, load_weights, read_metadata
from mmdisco_jax.types import DenoiseFn, LogRatioFn


def base_model(config: Config, name: str) -> tuple[nnx.GraphDef, Any]:
    """The graph definition of one base model, and a function key -> its random parameters.

    `name` is a modality, or "joint" for a model of all of them.
    """
    section = config.bases[name].copy_and_resolve_references()
    if is_pretrained(section):
        port, spec, _ = pretrained_base(config, name)
        return definition(port.module, spec)
    noise: tuple[Schedule, ...] = (schedules(config)[name],) if name != JOINT else ()
    if name == JOINT:
        with section.unlocked():
            del section.sample_shapes
            del section.prediction
    return definition(functools.partial(named, section, BASE_MODELS, *noise))


def sample_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Of a sample of each modality, as the base models see it."""
    if JOINT in config.bases:
        return {m: tuple(shape) for m, shape in config.bases[JOINT].sample_shapes.items()}
    return {m: tuple(section.sample_shape) for m, section in config.bases.items()}


def clip_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Of a prepared clip of each modality, whose encoding has `sample_shapes`."""
    latents = sample_shapes(config)
    shapes = {m: decoded_shape(config, m, latents[m]) for m in config.codecs}
    frames, height, width, channels = shapes["video"]
    shrink = config.codecs.video.get("shrink", 1)
    return shapes | {"video": (frames, shrink * height, shrink * width, channels)}


def bases(
    config: Config, mesh: Mesh | None = None
) -> tuple[dict[str, nnx.GraphDef], dict[str, Any]]:
    """The frozen base models: graph definitions, and parameters from the config's weight files.

    mesh: where pretrained ones are put as they are read, by `parallel.DEFAULT_RULES`.

    ValueError if a file does not fit, or was trained with other schedules (`check_schedules`).
    """
    graphdefs, params = {}, {}
    for m, section in config.bases.items():
        if is_pretrained(section):
            graphdefs[m], params[m] = load_base(config, m, mesh)
            continue
        graphdefs[m], init = base_model(config, m)
        params[m] = load_weights(config.weights[m], jax.eval_shape(init, jax.random.key(0)))
        check_schedules(config, config.weights[m])
    return graphdefs, params


def base_models(
    config: Config, graphdefs: dict[str, nnx.GraphDef], params: dict[str, Any]
) -> dict[str, Any]:
    """Models from what `bases` returns: eps networks, or a `JointModel`."""
    models = {m: nnx.merge(graphdefs[m], params[m]) for m in graphdefs}
    for m in models:
        if is_pretrained(config.bases[m]):
            models[m] = TextUNet(models[m])
    if JOINT in models:
        models[JOINT] = JointModel(
            network=models[JOINT],
            schedules=schedules(config),
            prediction=config.bases[JOINT].prediction,
        )
    return models


def denoise_fn(models: dict[str, Any]) -> DenoiseFn:
    """One eps model per modality, or one of all, as a denoiser of the pair.

    Its condition is None, or text embeddings {modality: [b ...]}.
    """
    if JOINT in models:
        return models[JOINT].denoise
    return lambda x, t, cond: {
        m: models[m](x[m], t) if cond is None else models[m](x[m], t, cond[m]) for m in x
    }


def discriminator(config: Config) -> tuple[nnx.GraphDef, Any]:
    """The graph definition of the discriminator, and a function key -> its random parameters."""
    return definition(functools.partial(named, config.discriminator, DISCRIMINATORS))


def pair_model(graphdef: nnx.GraphDef, params: Any, models: dict[str, Any]) -> Any:
    """The discriminator as (x_t, t) -> logit, on the base models if it reads their features."""
    model = nnx.merge(graphdef, params)
    return model.on_bases(models) if hasattr(model, "on_bases") else model


def log_ratio_fn(
    config: Config, graphdef: nnx.GraphDef, params: Any, models: dict[str, Any]
) -> LogRatioFn:
    """h of the discriminator with these parameters, in the form that the config asks for."""
    model = pair_model(graphdef, params, models)
    return lambda x, t, cond: log_ratio(model(x, t, cond), config.guidance.log_ratio)


def base_digests(config: Config) -> dict[str, str]:
    """SHA-256 of the base models' weights: a discriminator on their features needs these."""
    digests = {}
    for m, section in config.bases.items():
        if is_pretrained(section):
            digests[m] = pretrained_digest(config, m)
        elif Path(config.weights[m]).is_file():
            digests[m] = digest(config.weights[m])
    return digests


def check_bases(path: str, found: dict[str, str]) -> None:
    """ValueError if the discriminator's file names other base weights than the config's."""
    wanted = json.loads(read_metadata(path).get("bases", "{}"))
    for m, digest_of in wanted.items():
        if found.get(m) != digest_of:
            raise ValueError(
                f"{path} reads features of a {m} model with SHA-256 {digest_of[:12]}, but the "
                f"config's weights.{m} is {found.get(m, 'missing')[:12]}: give the weights it was "
                "trained on, or train the discriminator again."
            )

# SPDX-License-Identifier: Apache-2.0
"""Golden kind "mmdisco_sample": the official joint sampling loop, analytic bases, named noise."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmdisco_jax.discriminator.log_ratio import log_ratio
from mmdisco_jax.discriminator.official import OfficialDiscriminator
from mmdisco_jax.guidance.classifier_free import classifier_free
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers.noise import NoiseFn
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.types import AV, Array, LogRatioFn
from tests.golden.checker import FORWARD, Golden, Pair
from tests.golden.kinds.ddpm_scheduler import path_of, schedule_of
from tests.golden.kinds.discriminator import spec_of

# Official layouts [b c l m] and [b c f h w] to ours.
_TO_OURS = {"audio": (0, 2, 3, 1), "video": (0, 2, 3, 4, 1)}
_MODALITIES = ("audio", "video")  # the order in which the official loop draws


def _ours(x: np.ndarray, modality: str) -> np.ndarray:
    return np.transpose(x, _TO_OURS[modality])


def _recorded(golden: Golden, shapes: Mapping, num_steps: int, num_substeps: int) -> NoiseFn:
    """The named noise: of each substep but the first, two draws back, then two draws down."""
    draws = [2 * j + down for j in range(num_substeps) for down in ((0, 1) if j else (1,))]
    calls = [(s, d, m) for s in range(num_steps) for d in draws for m in _MODALITIES]
    # Draw 0 is not in the recording, nor used: the first substep does not go back.
    tables = {m: np.zeros((num_steps, 2 * num_substeps, *shapes[m]), np.float32) for m in shapes}
    for n, (step, draw, m) in enumerate(calls, 1):
        tables[m][step, draw] = golden.input(f"noise{n}", shapes[m])
    axes = {m: (0, 1, *(axis + 2 for axis in _TO_OURS[m])) for m in shapes}
    moved = {m: jnp.asarray(tables[m].transpose(axes[m])) for m in shapes}
    return lambda step, draw, modality, shape: moved[modality][step, draw].reshape(shape)


def _base(schedules: Mapping[str, Schedule]):
    """The analytic noise predictors of `meta`: Gaussians whose mean the text decides."""

    def denoise(x: AV, t: Array, cond: AV) -> AV:
        eps = {}
        for m in x:
            text = cond[m].reshape(len(t), -1).mean(1)
            alpha = per_sample(schedules[m].alpha(t), x[m])
            sigma = per_sample(schedules[m].sigma(t), x[m])
            mean = per_sample(0.25 * text + 0.1, x[m])
            eps[m] = sigma * (x[m] - alpha * mean) / (0.36 * alpha**2 + sigma**2)
        return eps

    return denoise


def _official_log_ratio(golden: Golden) -> LogRatioFn:
    weights = golden.weights()
    weights["last_linear.weight"] *= golden.require("last_linear_weight_scale")
    spec = spec_of(golden.require("config"))
    network = load_module(lambda: OfficialDiscriminator(spec, rngs=param_keys(0)), weights)

    def h(x: AV, t: Array, cond: AV) -> Array:
        logit = network(x["video"], x["audio"], t, cond["video"], cond["audio"])
        return log_ratio(logit, "official")

    return h


def check(golden: Golden) -> dict[str, Pair]:
    """Samples of every case. Texts are [b d] or [b s d]; the discriminator averages over s."""
    configs = {m: golden.require(f"{m}_scheduler") for m in _MODALITIES}
    schedules = {m: schedule_of(configs[m]) for m in _MODALITIES}
    num_steps = golden.require("num_inference_steps")
    paths = {m: path_of(configs[m], num_steps) for m in _MODALITIES}
    steppers = {m: paths[m][0] for m in _MODALITIES}
    latents = {m: golden[f"latent_{m}"] for m in _MODALITIES}
    shapes = {m: latents[m].shape for m in _MODALITIES}
    x_T = {m: jnp.asarray(_ours(latents[m], m)) for m in _MODALITIES}
    text = {m: jnp.asarray(golden[f"{m}_text"]) for m in _MODALITIES}
    empty = {m: jnp.asarray(golden[f"{m}_text_neg"]) for m in _MODALITIES}
    scales = {m: golden.require(f"{m}_cfg_scale") for m in _MODALITIES}

    def with_text(field):
        return classifier_free(field, scales, empty)

    h = _official_log_ratio(golden)
    pairs = {}
    for name, case in golden.require("cases").items():
        strength = {m: case.get(f"joint_scale_{m}", 0.0) for m in _MODALITIES}
        substeps = case.get("joint_num_steps", 1)
        noise = _recorded(golden, shapes, num_steps, substeps)

        scale = strength if case["joint"] else {}
        guided = joint(_base(schedules), h, schedules, scale, text_guidance=with_text)
        sampler = Sampler(steppers, schedules, paths["audio"][1], substeps)

        def run(x, guided=guided, noise=noise, sampler=sampler):
            return sampler.run(guided, x_T=x, noise=noise, cond=text)

        out = jax.jit(run)(x_T)
        for m in _MODALITIES:
            got = np.transpose(np.asarray(out[m]), np.argsort(_TO_OURS[m]))
            pairs[f"{name}/{m}"] = Pair(got, golden[f"{name}/{m}"], FORWARD)
    return pairs

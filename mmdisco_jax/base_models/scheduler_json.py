# SPDX-License-Identifier: Apache-2.0
"""Noise schedule of a diffusers `scheduler_config.json`, read strictly.

The file describes two things: the noise levels a network was trained with, and how diffusers would
sample. The first decides what a network's numbers mean; a value that this project does not have is
an error. The second is decided here by `config.sample`, and does not matter, but for values that
say something of the network itself, such as a learned variance.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmdisco_jax.nn.config_json import read_config

# Schedulers of discrete noise levels, whose networks any of our samplers can use. Those of
# consistency models (LCM, TCD), of continuous levels (EDM, Cosine) and of flows have others.
CLASSES = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "LMSDiscrete", "EulerDiscrete"),
        *("EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
        *("DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep"),
        *("UniPCMultistep", "SASolver"),
    )
)
_REQUIRED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
_READ = {**dict.fromkeys(_REQUIRED), "trained_betas": None}
_FIXED = {
    "prediction_type": ("epsilon",),
    "rescale_betas_zero_snr": (False, None),
    # A network that predicts a variance too has twice the channels.
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    # What the network is told of a level, and other parametrisations than by betas.
    "timestep_type": ("discrete",),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
}
# How diffusers would choose levels and step between them.
_IGNORED = {
    *("timestep_spacing", "steps_offset", "set_alpha_to_one", "skip_prk_steps"),
    *("clip_sample", "clip_sample_range", "thresholding"),
    *("dynamic_thresholding_ratio", "sample_max_value", "interpolation_type", "final_sigmas_type"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"),
    *("sigma_min", "sigma_max", "lambda_min_clipped", "lower_order_final", "euler_at_final"),
    *("algorithm_type", "solver_order", "solver_type", "solver_p", "predict_x0", "corrector_order"),
    *("disable_corrector", "predictor_order", "tau_func", "noise_sampler_seed"),
    *("flow_shift", "shift_terminal", "time_shift_type"),  # of use_flow_sigmas
}


def read_abar(config: Mapping[str, Any]) -> np.ndarray:
    """Read the noise levels of a scheduler's file: abar, float64 [T].

    Args:
      config: the content of `scheduler_config.json`.

    Raises:
      ValueError: another class of scheduler; a key that is missing, unknown, or has a value with
        which the network would mean something else here. The message names it.
    """
    name = config.get("_class_name")
    if name is not None and name not in CLASSES:
        known = ", ".join(sorted(CLASSES))
        raise ValueError(
            f"_class_name is {name!r}, whose networks are sampled in another way; known are {known}"
        )
    for key in ("clip_sample", "thresholding"):
        if config.get(key):
            raise ValueError(
                f"scheduler: config has {key}={config[key]!r}, but limits of the signal are set in "
                f"config.sample.samplers.*.clip (and quantile): set them there, and {key} to false."
            )
    read = read_config(config, model="scheduler", defaults=_READ, fixed=_FIXED, ignored=_IGNORED)
    if read["trained_betas"] is not None:
        betas = np.asarray(read["trained_betas"], np.float64)
    else:
        missing = [key for key in _REQUIRED if read[key] is None]
        if missing:
            raise ValueError(
                f"scheduler: the config lacks {', '.join(missing)}, which decide its noise levels: "
                "get the file again, or add what the model was trained with."
            )
        betas = _betas(*(read[key] for key in _REQUIRED))
    return np.cumprod(1.0 - betas)


def _betas(total: int, start: float, end: float, shape: str) -> np.ndarray:
    """The tables that diffusers makes of these settings, float64 [total]."""
    if shape == "linear":
        return np.linspace(start, end, total)
    if shape == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, total) ** 2
    if shape == "squaredcos_cap_v2":
        curve = np.cos((np.arange(total + 1) / total + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    if shape == "sigmoid":
        return (end - start) / (1 + np.exp(-np.linspace(-6, 6, total))) + start
    raise ValueError(
        f"scheduler: config has beta_schedule={shape!r}; known are linear, scaled_linear, "
        "squaredcos_cap_v2 and sigmoid: give trained_betas, the table itself."
    )

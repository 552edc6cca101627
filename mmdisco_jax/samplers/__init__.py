# SPDX-License-Identifier: Apache-2.0
"""Samplers: from noise to samples. A stepper takes one step; `sample` holds the only loop."""

from mmdisco_jax.registry import Registry

SAMPLERS = Registry(
    "sampler",
    {
        "ddim": "mmdisco_jax.samplers.ddim:DDIM",
        "ddpm": "mmdisco_jax.samplers.ddpm:DDPM",
        "dpm_solver": "mmdisco_jax.samplers.dpm_solver:noise_prediction",
        "dpm_solver_pp": "mmdisco_jax.samplers.dpm_solver:DPMSolver",
        "dpm_solver_pp_2m": "mmdisco_jax.samplers.dpm_solver:DPMSolverPP2M",
    },
)

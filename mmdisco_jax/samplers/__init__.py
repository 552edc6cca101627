# SPDX-License-Identifier: Apache-2.0
"""Samplers: a `Stepper` takes one step of a modality, a `Sampler` from noise to samples."""

from mmdisco_jax.registry import Registry

SAMPLERS = Registry(
    "sampler",
    {
        "ddim": "mmdisco_jax.samplers.ddim:DDIM",
        "ddpm": "mmdisco_jax.samplers.ddpm:DDPM",
        "dpm_solver": "mmdisco_jax.samplers.dpm_solver:DPMSolverEps",
        "dpm_solver_pp": "mmdisco_jax.samplers.dpm_solver:DPMSolver",
        "dpm_solver_pp_2m": "mmdisco_jax.samplers.dpm_solver:DPMSolverPP2M",
    },
)

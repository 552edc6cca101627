# SPDX-License-Identifier: Apache-2.0
"""Joint audio-video generation guided by a discriminator, in JAX (MMDisCo, ICLR 2025).

    import mmdisco_jax as mm

`mm.__all__` is the public interface. Each name is imported at its first use, so importing the
package costs milliseconds and starts no JAX; parts that are not listed here may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdisco_jax.experiment import Experiment as Experiment
    from mmdisco_jax.experiment import load_config as load_config
    from mmdisco_jax.export.media import write_mp4 as write_mp4
    from mmdisco_jax.guidance.classifier_free import classifier_free as classifier_free
    from mmdisco_jax.guidance.joint import Plan as Plan
    from mmdisco_jax.guidance.joint import joint as joint
    from mmdisco_jax.metrics.evaluation import evaluate as evaluate
    from mmdisco_jax.process.schedules import Schedule as Schedule
    from mmdisco_jax.process.schedules import cosine as cosine
    from mmdisco_jax.process.schedules import linear as linear
    from mmdisco_jax.process.schedules import scaled_linear as scaled_linear
    from mmdisco_jax.samplers.ddim import DDIM as DDIM
    from mmdisco_jax.samplers.ddpm import DDPM as DDPM
    from mmdisco_jax.samplers.dpm_solver import DPMSolver as DPMSolver
    from mmdisco_jax.samplers.dpm_solver import DPMSolverPP2M as DPMSolverPP2M
    from mmdisco_jax.samplers.levels import Levels as Levels
    from mmdisco_jax.samplers.levels import levels as levels
    from mmdisco_jax.samplers.levels import solver_levels as solver_levels
    from mmdisco_jax.samplers.sampler import Sampler as Sampler
    from mmdisco_jax.system import System as System
    from mmdisco_jax.system import load as load
    from mmdisco_jax.tasks.gallery import write_gallery as write_gallery
    from mmdisco_jax.types import ClipFormat as ClipFormat

__version__ = "0.1.0"

# name: "module:attribute"; the imports above say the same to type checkers, and a test compares.
_PUBLIC = {
    "ClipFormat": "mmdisco_jax.types:ClipFormat",
    "DDIM": "mmdisco_jax.samplers.ddim:DDIM",
    "DDPM": "mmdisco_jax.samplers.ddpm:DDPM",
    "DPMSolver": "mmdisco_jax.samplers.dpm_solver:DPMSolver",
    "DPMSolverPP2M": "mmdisco_jax.samplers.dpm_solver:DPMSolverPP2M",
    "Experiment": "mmdisco_jax.experiment:Experiment",
    "Levels": "mmdisco_jax.samplers.levels:Levels",
    "Plan": "mmdisco_jax.guidance.joint:Plan",
    "Sampler": "mmdisco_jax.samplers.sampler:Sampler",
    "Schedule": "mmdisco_jax.process.schedules:Schedule",
    "System": "mmdisco_jax.system:System",
    "classifier_free": "mmdisco_jax.guidance.classifier_free:classifier_free",
    "cosine": "mmdisco_jax.process.schedules:cosine",
    "evaluate": "mmdisco_jax.metrics.evaluation:evaluate",
    "joint": "mmdisco_jax.guidance.joint:joint",
    "levels": "mmdisco_jax.samplers.levels:levels",
    "linear": "mmdisco_jax.process.schedules:linear",
    "load": "mmdisco_jax.system:load",
    "load_config": "mmdisco_jax.experiment:load_config",
    "scaled_linear": "mmdisco_jax.process.schedules:scaled_linear",
    "solver_levels": "mmdisco_jax.samplers.levels:solver_levels",
    "write_gallery": "mmdisco_jax.tasks.gallery:write_gallery",
    "write_mp4": "mmdisco_jax.export.media:write_mp4",
}
__all__ = list(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}: mmdisco_jax.__all__ lists the public "
            "names; anything else is imported from its own module."
        )
    module, attribute = _PUBLIC[name].split(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

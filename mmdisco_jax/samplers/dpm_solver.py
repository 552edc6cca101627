# SPDX-License-Identifier: Apache-2.0
"""DPM-Solver (Lu et al. 2022, 2206.00927) and DPM-Solver++ (2211.01095) of orders 1 to 3."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.samplers import exponential
from mmdisco_jax.samplers.api import (
    Row,
    alpha_sigma,
    check_clip,
    check_quantile,
    predict_x0,
)
from mmdisco_jax.samplers.levels import Levels
from mmdisco_jax.types import Array

METHODS = ("singlestep", "singlestep_fixed", "multistep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverPP2M:
    """Algorithm 2 of 2211.01095 in few columns; `DPMSolver` has it among others.

    clip: limit of |x0|, or None. The first step is of first order, and so is one to the clean
    signal.
    """

    clip: float | None = None

    def __post_init__(self):
        check_clip(self.clip)

    @property
    def staged(self) -> bool:
        return False

    @property
    def learned_variance(self) -> bool:
        return False

    def tables(self, schedule: Schedule, levels: Levels) -> dict[str, np.ndarray]:
        now, after = levels.abar(schedule)
        log_snr = 0.5 * (np.log(now) - np.log1p(-now))
        # e^-h of the step to the clean signal is 0: x_next is x0 itself.
        shrink = np.append(np.exp(log_snr[:-1] - log_snr[1:]), 0.0)
        h = np.diff(log_snr)
        extrapolate = np.zeros(len(now))
        # Half of h_i / h_{i-1} for inner steps: the last one has h infinite and stays first order.
        extrapolate[1:-1] = 0.5 * h[1:] / h[:-1]
        return alpha_sigma(now, after) | {
            "from_x": np.sqrt((1 - after) / (1 - now)),
            "from_x0": np.sqrt(after) * (1 - shrink),
            "extrapolate": extrapolate,
        }

    def init(self, x: Array) -> Array:
        return jnp.zeros_like(x)

    def step(
        self, x: Array, eps: Array, row: Row, state: Array, noise: Array
    ) -> tuple[Array, Array]:
        del noise
        x0 = predict_x0(x, eps, row, self.clip)
        blend = x0 + row["extrapolate"] * (x0 - state)
        return row["from_x"] * x + row["from_x0"] * blend, x0


class Stages(NamedTuple):
    """Start of the current step, and the two predictions before this row's: [b ...] each."""

    start: Array
    last: Array
    before: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolver:
    """Single-step and multistep solvers; one row of the tables is one call of the model.

    Where the official multimodal solver errs, this one does not: each modality has its own formula
    of the first-order noise-prediction step (official audio gets the data-prediction one), its own
    shape in third-order multistep, and its own derivatives in third-order "taylor" steps; a batch
    of one works; third-order multistep is of third order (see `exponential.weights`).

    Attributes:
      prediction: what is interpolated: "x0" is DPM-Solver++, "eps" DPM-Solver.
      order: 1 to 3. Order 1 is DDIM at eta 0.
      method: "singlestep": steps of `order` calls each, with lower orders at the end so that all
        calls are used ("DPM-Solver-fast"; 20 calls of order 3 are [3] * 6 + [2]).
        "singlestep_fixed": no lower orders; the calls must be a multiple of `order`. "multistep":
        one call per step, with lower orders at the beginning.
      variant: "dpm_solver" or "taylor", see `exponential.weights`.
      clip: limit of |x0|, or None; with "eps", the noise is made to agree with the limited signal.
      quantile: None, or dynamic thresholding of x0 to `clip`, per sample: 0.995 with clip 1.0 is
        the official `thresholding`.

    A step to the clean signal, if the path ends with one, is of first order: x0 itself.
    """

    prediction: str = "x0"
    order: int = 3
    method: str = "singlestep"
    variant: str = "dpm_solver"
    clip: float | None = None
    quantile: float | None = None

    def __post_init__(self):
        for name, known in (
            ("prediction", exponential.PREDICTIONS),
            ("order", (1, 2, 3)),
            ("method", METHODS),
            ("variant", exponential.VARIANTS),
        ):
            if getattr(self, name) not in known:
                choices = ", ".join(map(str, known))
                value = getattr(self, name)
                raise ValueError(f"DPMSolver's {name} is {value!r}: choose one of {choices}.")
        check_clip(self.clip)
        check_quantile(self.quantile, self.clip)

    @property
    def learned_variance(self) -> bool:
        return False

    @property
    def staged(self) -> bool:
        """True if a step takes several rows, so that rows depend on where the step began."""
        return self.method != "multistep" and self.order > 1

    def tables(self, schedule: Schedule, levels: Levels) -> dict[str, np.ndarray]:
        now, after = levels.abar(schedule)
        n, to_clean = len(now), bool(after[-1] == 1.0)
        abar = now if to_clean else np.append(now, after[-1])
        log_snr = 0.5 * (np.log(abar) - np.log1p(-abar))
        out = {name: np.zeros(n) for name in ("fresh", "from_start", "now", "last", "before")}
        for i, (start, nodes, variant) in enumerate(self._plan(n - to_clean)):
            ratio, scale, z = exponential.ends(log_snr[start], log_snr[i + 1], self.prediction, np)
            h = log_snr[i + 1] - log_snr[start]
            positions = tuple((log_snr[node] - log_snr[start]) / h for node in nodes)
            of_node = dict(
                zip(
                    (start, *nodes),
                    exponential.weights(scale, z, positions, variant, np),
                    strict=True,
                )
            )
            out["fresh"][i] = start == i
            out["from_start"][i] = ratio
            for age, name in enumerate(("now", "last", "before")):
                out[name][i] = of_node.get(i - age, 0.0)
        if to_clean:
            x0, alpha, sigma = self.prediction == "x0", np.sqrt(now[-1]), np.sqrt(1 - now[-1])
            out["fresh"][-1] = 1.0
            out["from_start"][-1] = 0.0 if x0 else 1 / alpha
            out["now"][-1] = 1.0 if x0 else -sigma / alpha
        return alpha_sigma(now, after) | out

    def _plan(self, n: int) -> list[tuple[int, tuple[int, ...], str]]:
        """Of each of n rows between levels: where its step starts, the other nodes, the variant."""
        if self.method == "multistep":
            # The quadratic through three past predictions has one form: no variant of it.
            orders = [min(i + 1, self.order) for i in range(n)]
            past = [tuple(range(i - 1, i - k, -1)) for i, k in enumerate(orders)]
            return [(i, p, "taylor" if len(p) == 2 else self.variant) for i, p in enumerate(past)]
        plan, start = [], 0
        for order in orders_of(n, self.order, fixed=self.method == "singlestep_fixed"):
            for stage in range(order):
                nodes = tuple(range(start + 1, start + stage + 1))
                # Stages before the last only prepare it, by the polynomial through all so far.
                final = stage == order - 1
                plan.append((start, nodes, self.variant if final else "taylor"))
            start += order
        return plan

    def init(self, x: Array) -> Stages:
        return Stages(*[jnp.zeros_like(x)] * 3)

    def step(
        self, x: Array, eps: Array, row: Row, state: Stages, noise: Array
    ) -> tuple[Array, Stages]:
        del noise
        new = exponential.predicted(x, eps, row["alpha"], row["sigma"], self)
        start = jnp.where(row["fresh"] > 0, x, state.start)
        x = row["from_start"] * start + row["now"] * new
        x = x + row["last"] * state.last + row["before"] * state.before
        return x, Stages(start, new, state.last)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverEps(DPMSolver):
    """DPM-Solver proper (2206.00927), which interpolates the noise: `DPMSolver` with "eps"."""

    prediction: str = "eps"


def orders_of(num_evaluations: int, order: int, *, fixed: bool = False) -> list[int]:
    """Orders of single-step steps that use `num_evaluations` calls: the official lists.

    Order 2 ends with a 1 if the number is odd; order 3 ends with [2, 1], [1] or [2] at remainders
    0, 1 and 2. fixed: `order` alone.
    """
    if fixed:
        if num_evaluations % order:
            raise ValueError(
                f"{num_evaluations} calls are no multiple of order {order}: singlestep_fixed needs "
                "one (besides the call of a step to the clean signal); method 'singlestep' ends "
                "with lower orders."
            )
        return [order] * (num_evaluations // order)
    whole, rest = divmod(num_evaluations, order)
    if order == 3 and rest == 0 and whole:
        return [3] * (whole - 1) + [2, 1]
    return [order] * whole + [rest] * (rest > 0)

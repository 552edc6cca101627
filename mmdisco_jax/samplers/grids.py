# SPDX-License-Identifier: Apache-2.0
"""Time grids: which of the T noise levels a sampler visits, largest first."""

import dataclasses

import numpy as np

from mmdisco_jax.process.schedules import Schedule

SPACINGS = ("leading", "trailing", "linspace", "logsnr")
SOLVER_SPACINGS = ("logsnr", "uniform", "quadratic")
MODEL_TIMES = ("truncated", "continuous")


def timesteps(
    schedule: Schedule, num_steps: int, spacing: str = "trailing", offset: int = 0
) -> np.ndarray:
    """int32 [n <= num_steps] of strictly falling noise levels.

    leading: multiples of T // num_steps plus `offset` (the official loop's, which starts below
    T - 1). trailing: ends at T - 1 (Lin et al. 2024). linspace: both ends. logsnr: even in
    log(alpha / sigma); levels that round to the same integer are visited once.
    """
    total = schedule.num_timesteps
    if not 1 <= num_steps <= total:
        raise ValueError(f"num_steps must be in 1..{total}, got {num_steps}.")
    if spacing == "leading":
        grid = np.arange(num_steps)[::-1] * (total // num_steps) + offset
    elif spacing == "trailing":
        grid = np.rint(np.arange(total, 0, -total / num_steps))[:num_steps] - 1
    elif spacing == "linspace":
        grid = np.rint(np.linspace(total - 1, 0, num_steps))
    elif spacing == "logsnr":
        log_snr = 0.5 * (np.log(schedule.abar) - np.log1p(-schedule.abar))
        even = np.linspace(log_snr[-1], log_snr[0], num_steps)
        # np.interp needs rising abscissae: log-SNR falls with t.
        grid = np.rint(np.interp(even, log_snr[::-1], np.arange(total)[::-1]))
    else:
        raise ValueError(f"unknown spacing {spacing!r}: choose one of {', '.join(SPACINGS)}.")
    return np.unique(grid.astype(np.int32))[::-1].copy()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TimeGrid:
    """Noise levels that need not be whole numbers, one per call of the model.

    Attributes:
      times: float64 [n], strictly falling, in 0..T-1: the levels at which the model is asked.
      model_times: [n], what the model is told they are: int32, or floating for a model that
        understands levels between those of its schedule. They may repeat.
      end: the level, below the last of `times`, where the last step goes; None: the clean signal.
    """

    times: np.ndarray
    model_times: np.ndarray
    end: float | None = None

    def __post_init__(self):
        nodes = self.nodes
        if nodes.ndim != 1 or not len(self.times) or nodes.min() < 0 or np.any(np.diff(nodes) >= 0):
            raise ValueError(
                f"a time grid must fall strictly and stay at or above 0, its end included; got "
                f"{self.times} and end {self.end}."
            )
        if np.shape(self.model_times) != np.shape(self.times):
            raise ValueError(
                f"a time grid needs one model time per level, got {np.shape(self.model_times)} for "
                f"{np.shape(self.times)}."
            )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def nodes(self) -> np.ndarray:
        """`times`, and the end if it is a level."""
        return np.asarray(self.times) if self.end is None else np.append(self.times, self.end)


def solver_grid(
    schedule: Schedule,
    num_evaluations: int,
    spacing: str = "logsnr",
    *,
    to_clean: bool = False,
    model_time: str = "truncated",
) -> TimeGrid:
    """The grids of DPM-Solver (2206.00927, appendix D), from T - 1 to 0, in `num_evaluations`.

    Args:
      schedule: whose levels; between whole ones, log alpha is linear.
      num_evaluations: calls of the model, and steps: at least 1.
      spacing: "logsnr": even in log(alpha / sigma). "uniform": even in t. "quadratic": even in
        the root of (t + 1) / T, the official continuous time.
      to_clean: spend the last call at level 0 on a step from there to the clean signal (the
        official `denoise`, which counts this call extra). Otherwise samples end at level 0.
      model_time: "truncated" tells the model the whole part of the level, as the official wrapper
        does; "continuous" tells it the level itself.
    """
    if num_evaluations < 1:
        raise ValueError(f"num_evaluations must be at least 1, got {num_evaluations}.")
    if model_time not in MODEL_TIMES:
        known = ", ".join(MODEL_TIMES)
        raise ValueError(f"unknown model time {model_time!r}: choose one of {known}.")
    total, steps = schedule.num_timesteps, num_evaluations - to_clean
    if spacing == "logsnr":
        ends = schedule.abar[[-1, 0]]
        first, last = 0.5 * (np.log(ends) - np.log1p(-ends))
        log_snr = np.linspace(first, last, steps + 1)
        nodes = schedule.level_between(log_snr)
    elif spacing == "uniform":
        nodes = np.linspace(total - 1, 0, steps + 1)
    elif spacing == "quadratic":
        nodes = total * np.linspace(1.0, total**-0.5, steps + 1) ** 2 - 1
    else:
        known = ", ".join(SOLVER_SPACINGS)
        raise ValueError(f"unknown solver spacing {spacing!r}: choose one of {known}.")
    nodes[-1] = 0.0  # exactly, as are whole levels that rounding left a little below
    if steps:
        nodes[0] = total - 1.0
    times = nodes if to_clean else nodes[:-1]
    told = np.floor(times + 1e-6).astype(np.int32)
    return TimeGrid(
        times=times,
        model_times=told if model_time == "truncated" else times,
        end=None if to_clean else 0.0,
    )

# SPDX-License-Identifier: Apache-2.0
"""Time grids: which of the T noise levels a sampler visits, largest first."""

import numpy as np

from mmdisco_jax.process.schedules import Schedule

SPACINGS = ("leading", "trailing", "linspace", "logsnr")


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

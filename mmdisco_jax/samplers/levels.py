# SPDX-License-Identifier: Apache-2.0
"""Paths of noise levels: which levels a sampler visits, largest first."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmdisco_jax.process.schedules import Schedule

SPACINGS = ("leading", "trailing", "linspace", "logsnr")
SOLVER_SPACINGS = ("logsnr", "uniform", "quadratic")
MODEL_TIMES = ("truncated", "continuous")
_DDIM = "ddim"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Levels:
    """Path of noise levels, one per call of the model.

    Attributes:
      times: [n], strictly falling, at or above 0: the levels at which the model is asked. Integers
        are levels of the schedule's table, exactly; floating ones may lie between those.
      model_times: [n], what the model is told they are, if not `times`: int32, or floating for a
        model that understands levels between those of its schedule. They may repeat.
      end: the level, below the last of `times`, where the last step goes; None: the clean signal.

    Raises:
      ValueError: levels that do not fall, or not one model time for each.
    """

    times: np.ndarray
    model_times: np.ndarray = None  # type: ignore[assignment]  # filled in
    end: float | None = None

    def __post_init__(self):
        times = np.asarray(self.times)
        kind = np.int32 if np.issubdtype(times.dtype, np.integer) else np.float64
        object.__setattr__(self, "times", times.astype(kind))
        told = self.times if self.model_times is None else np.asarray(self.model_times)
        object.__setattr__(self, "model_times", told)
        nodes = self.nodes
        if nodes.ndim != 1 or not len(times) or nodes.min() < 0 or np.any(np.diff(nodes) >= 0):
            raise ValueError(
                f"noise levels must fall strictly and stay at or above 0, their end included; got "
                f"{self.times} and end {self.end}."
            )
        if told.shape != times.shape:
            raise ValueError(
                f"a path needs one model time per level, got {told.shape} for {times.shape}."
            )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def are_whole(self) -> bool:
        """True if the levels are those of the schedule's table."""
        return np.issubdtype(self.times.dtype, np.integer)

    @property
    def nodes(self) -> np.ndarray:
        """`times`, and the end if it is a level."""
        return self.times if self.end is None else np.append(self.times, self.end)

    def abar(self, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
        """abar at each level and at the one after it (1 where that is the clean signal), float64.

        Raises:
          ValueError: a level above the schedule's last.
        """
        if self.times[0] > schedule.num_timesteps - 1:
            raise ValueError(
                f"the path starts at noise level {self.times[0]}, but the schedule ends at "
                f"{schedule.num_timesteps - 1}: make the levels from a schedule of this length."
            )
        abar = schedule.abar_between(self.nodes)
        if self.are_whole:  # interpolation would change the last digits of the table's own values
            abar[: len(self)] = schedule.abar[self.times]
        return (abar, np.append(abar[1:], 1.0)) if self.end is None else (abar[:-1], abar[1:])


def levels(
    schedules: Schedule | Mapping[str, Schedule],
    num_steps: int,
    spacing: str = "trailing",
    offset: int = 0,
) -> Levels:
    """Whole noise levels, at most `num_steps` of them, ending with a step to the clean signal.

    Args:
      schedules: whose levels: one schedule, or {modality: schedule} of one length.
      num_steps: 1..T.
      spacing: "leading": multiples of T // num_steps plus `offset` (the official loop's, which
        starts below T - 1). "trailing": begins at T - 1 (Lin et al. 2024). "linspace": both ends.
        "logsnr": even in the first schedule's log(alpha / sigma); levels that round to the same
        integer are visited once.
      offset: of "leading" alone.

    Raises:
      ValueError: schedules of different lengths, an impossible number, an unknown spacing.
    """
    schedule = common(schedules)
    total = schedule.num_timesteps
    if not 1 <= num_steps <= total:
        raise ValueError(f"num_steps must be in 1..{total}, got {num_steps}.")
    if spacing == "leading":
        path = np.arange(num_steps)[::-1] * (total // num_steps) + offset
    elif spacing == "trailing":
        path = np.rint(np.arange(total, 0, -total / num_steps))[:num_steps] - 1
    elif spacing == "linspace":
        path = np.rint(np.linspace(total - 1, 0, num_steps))
    elif spacing == "logsnr":
        log_snr = 0.5 * (np.log(schedule.abar) - np.log1p(-schedule.abar))
        even = np.linspace(log_snr[-1], log_snr[0], num_steps)
        # np.interp needs rising abscissae: log-SNR falls with t.
        path = np.rint(np.interp(even, log_snr[::-1], np.arange(total)[::-1]))
    else:
        raise ValueError(f"unknown spacing {spacing!r}: choose one of {', '.join(SPACINGS)}.")
    return Levels(times=np.unique(path.astype(np.int32))[::-1].copy())


def solver_levels(
    schedules: Schedule | Mapping[str, Schedule],
    num_evaluations: int,
    spacing: str = "logsnr",
    *,
    to_clean: bool = False,
    model_time: str = "truncated",
) -> Levels:
    """Noise levels of DPM-Solver (2206.00927, appendix D), from T - 1 to 0, in `num_evaluations`.

    Args:
      schedules: whose levels: one schedule, or {modality: schedule} of one length; between whole
        levels, log alpha is linear.
      num_evaluations: calls of the model, and steps: at least 1.
      spacing: "logsnr": even in the first schedule's log(alpha / sigma). "uniform": even in t.
        "quadratic": even in the root of (t + 1) / T, the official continuous time.
      to_clean: spend the last call at level 0 on a step from there to the clean signal (the
        official `denoise`, which counts this call extra). Otherwise samples end at level 0.
      model_time: "truncated" tells the model the whole part of the level, as the official wrapper
        does; "continuous" tells it the level itself.

    Raises:
      ValueError: schedules of different lengths, an impossible number, an unknown name.
    """
    if num_evaluations < 1:
        raise ValueError(f"num_evaluations must be at least 1, got {num_evaluations}.")
    if model_time not in MODEL_TIMES:
        known = ", ".join(MODEL_TIMES)
        raise ValueError(f"unknown model time {model_time!r}: choose one of {known}.")
    schedule = common(schedules)
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
    return Levels(
        times=times,
        model_times=told if model_time == "truncated" else times,
        end=None if to_clean else 0.0,
    )


def respaced_levels(num_timesteps: int, spec: str) -> Levels:
    """Noise levels of a respaced process, in the official notation of guided-diffusion.

    Args:
      num_timesteps: T of the schedule.
      spec: "ddimN": N multiples of a whole stride (Song et al. 2021). "N": N levels, evenly from
        0 to T - 1. "N,M,...": T cut into that many equal sections (the first ones longer by one
        if it does not divide), and N, M, ... levels evenly from end to end of each. "": all.

    Raises:
      ValueError: another notation, or a count that cannot be had.
    """
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps must be at least 1, got {num_timesteps}.")
    if not spec:
        rising = np.arange(num_timesteps)
    elif spec.startswith(_DDIM):
        rising = _strided(num_timesteps, *_counts(spec, spec.removeprefix(_DDIM), sections=1))
    else:
        counts = _counts(spec, spec, sections=num_timesteps)
        size, longer = divmod(num_timesteps, len(counts))
        sizes = [size + (i < longer) for i in range(len(counts))]
        starts = np.cumsum([0, *sizes[:-1]])
        sections = zip(starts, sizes, counts, strict=True)
        rising = np.concatenate([start + _even(size, count) for start, size, count in sections])
    return Levels(times=rising.astype(np.int32)[::-1].copy())


def common(schedules: Schedule | Mapping[str, Schedule]) -> Schedule:
    """The one schedule, or the first of several of one length.

    Raises:
      ValueError: different lengths. Level 100 of 1000 is not level 100 of 200: a path of one
        must not stand for the other's.
    """
    if not isinstance(schedules, Mapping):
        return schedules
    lengths = {m: schedule.num_timesteps for m, schedule in schedules.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"the modalities' schedules have {lengths} noise levels, but one path of levels is "
            "common to all: give schedules of one length."
        )
    return next(iter(schedules.values()))


def _strided(total: int, count: int) -> np.ndarray:
    for stride in range(1, total):
        if -(-total // stride) == count:
            return np.arange(0, total, stride)
    raise ValueError(
        f"no whole stride visits {count} of {total} levels: use '{count}' for uneven steps, or "
        "another count."
    )


def _even(size: int, count: int) -> np.ndarray:
    if count > size:
        raise ValueError(f"a section of {size} levels cannot have {count} steps: ask for fewer.")
    stride = (size - 1) / (count - 1) if count > 1 else 1.0
    # Summed up as the official code does: a product rounds some halves the other way.
    return np.rint(np.cumsum([0.0, *[stride] * (count - 1)])).astype(np.int32)


def _counts(spec: str, text: str, *, sections: int) -> list[int]:
    parts = text.split(",")
    valid = all(part.strip().isdecimal() and int(part) > 0 for part in parts)
    if not valid or len(parts) > sections:
        raise ValueError(
            f"respacing {spec!r} is not understood: write a count as '50', counts of sections as "
            "'10,15,20', or 'ddim' and a count as 'ddim25'."
        )
    return [int(part) for part in parts]

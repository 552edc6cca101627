# SPDX-License-Identifier: Apache-2.0
"""Which noise levels a respaced sampler visits, from the official notation for them."""

import numpy as np

_DDIM = "ddim"


def respaced_timesteps(num_timesteps: int, spec: str) -> np.ndarray:
    """int32 [n], strictly rising levels in 0 .. num_timesteps - 1.

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
        return np.arange(num_timesteps, dtype=np.int32)
    if spec.startswith(_DDIM):
        return _strided(num_timesteps, *_counts(spec, spec.removeprefix(_DDIM), sections=1))
    counts = _counts(spec, spec, sections=num_timesteps)
    size, longer = divmod(num_timesteps, len(counts))
    sizes = [size + (i < longer) for i in range(len(counts))]
    starts = np.cumsum([0, *sizes[:-1]])
    sections = zip(starts, sizes, counts, strict=True)
    parts = [start + _even(size, count) for start, size, count in sections]
    return np.concatenate(parts).astype(np.int32)


def _strided(total: int, count: int) -> np.ndarray:
    for stride in range(1, total):
        if -(-total // stride) == count:
            return np.arange(0, total, stride, dtype=np.int32)
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

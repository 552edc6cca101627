# SPDX-License-Identifier: Apache-2.0
"""One step back of the forward process, the clean signal known (Ho et al. 2020, equation 7)."""

from typing import NamedTuple

import numpy as np


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(from_x0 x_0 + from_x x_t, small), for s < t; float64 arrays.

    large: beta = 1 - abar_t / abar_s, the upper end of a learned range of variances; `small`, the
    lower end, is 0 where s is the clean signal.
    """

    from_x0: np.ndarray
    from_x: np.ndarray
    small: np.ndarray
    large: np.ndarray


def posterior(now: np.ndarray, after: np.ndarray) -> Posterior:
    """From `now` = abar_t to `after` = abar_s (1: the clean signal), of one shape."""
    beta = 1 - now / after
    return Posterior(
        from_x0=np.sqrt(after) * beta / (1 - now),
        from_x=np.sqrt(now / after) * (1 - after) / (1 - now),
        small=(1 - after) / (1 - now) * beta,
        large=beta,
    )

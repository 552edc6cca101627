# SPDX-License-Identifier: Apache-2.0
"""Posterior q(x_s | x_t, x_0) of the forward process (Ho et al. 2020, equation 7).

The DDPM sampler steps along it, and the variational bound measures the distance from it.
"""

from typing import NamedTuple

import numpy as np


class Posterior(NamedTuple):
    """Coefficients of q(x_s | x_t, x_0) = N(from_x0 x_0 + from_x x_t, small), s < t; float64.

    Attributes:
      from_x0, from_x: weights of the clean and of the noisy signal in the mean.
      small: the posterior variance, the lower end of a learned range of variances. It is 0 where
        s is the clean signal.
      large: beta = 1 - abar_t / abar_s, the upper end of that range.
    """

    from_x0: np.ndarray
    from_x: np.ndarray
    small: np.ndarray
    large: np.ndarray


def posterior(now: np.ndarray, after: np.ndarray) -> Posterior:
    """Compute the posterior of a step from `now` = abar_t to `after` = abar_s, of one shape.

    abar_s = 1 stands for the clean signal.
    """
    beta = 1 - now / after
    return Posterior(
        from_x0=np.sqrt(after) * beta / (1 - now),
        from_x=np.sqrt(now / after) * (1 - after) / (1 - now),
        small=(1 - after) / (1 - now) * beta,
        large=beta,
    )

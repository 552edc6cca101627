# SPDX-License-Identifier: Apache-2.0
"""From the discriminator's logit to the log-ratio of joint to product density that guides."""

import jax
import jax.numpy as jnp
from jax import Array

FORMS = ("logit", "official")
_MARGIN = 1e-5  # of the official code


def log_ratio(logit: Array, form: str = "logit") -> Array:
    """log D / (1 - D) of a discriminator with that logit, per sample (MMDisCo, 2405.17842, sec. 3).

    `"logit"` is the logit itself. `"official"` is `log(p + 1e-5) - log1p(-p + 1e-5)` with p the
    sigmoid of the logit, as the released checkpoints are used; it is bounded by 11.52 and its slope
    dies when D is confident (0.38 at logit 12, 0 at 20), so that guidance vanishes there.

    Args:
      logit: any shape.
      form: "logit" or "official".

    Raises:
      ValueError: unknown form.
    """
    if form == "logit":
        return logit
    if form == "official":
        p = jax.nn.sigmoid(logit)
        return jnp.log(p + _MARGIN) - jnp.log1p(_MARGIN - p)
    raise ValueError(f"unknown log-ratio form {form!r}; known forms: {FORMS}")

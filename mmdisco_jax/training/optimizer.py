# SPDX-License-Identifier: Apache-2.0
"""Adam with warm-up, cosine decay and gradient clipping."""

import optax


def adam(
    *,
    learning_rate: float,
    num_steps: int,
    warmup_steps: int,
    final_fraction: float,
    b2: float,
    clip_norm: float,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """The optimizer of every training here; learning_rate is the peak, after `warmup_steps`."""
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(
            f"warmup_steps must be in 0..num_steps-1, got {warmup_steps} of {num_steps} steps: "
            "set train.warmup_steps as well."
        )
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else learning_rate,
        peak_value=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=num_steps,
        end_value=learning_rate * final_fraction,
    )
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(rate, b2=b2, weight_decay=weight_decay),
    )

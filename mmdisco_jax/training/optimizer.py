# SPDX-License-Identifier: Apache-2.0
"""AdamW optimizer with warm-up, cosine decay and gradient clipping."""

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
    """Makes the optimizer that all trainings of this project use.

    Args:
      learning_rate: peak, reached after `warmup_steps` of linear increase from 0.
      num_steps: length of the whole schedule; after the warm-up the rate follows a cosine.
      final_fraction: final rate as a fraction of the peak.
      b2: decay of Adam's second moment.
      clip_norm: largest global norm of a gradient.
      weight_decay: decoupled weight decay, multiplied by the rate.

    Raises:
      ValueError: the warm-up is negative or not shorter than the schedule.
    """
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

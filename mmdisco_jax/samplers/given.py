# SPDX-License-Identifier: Apache-2.0
"""Zero-shot conditional sampling: some modalities given, the others sampled.

It needs a joint model, which was never trained for it: MM-Diffusion (2212.09478, section 3.4), for
any split of the modalities into given and wanted.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax.samplers.api import Row, Stepper
from mmdisco_jax.types import AV, Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Given:
    """Signals that a sampling is held to.

    Before every step the given modalities are noised to its level, always with the same noise
    (replacement). With weight > 0 the step is also compared with what it should have made of them,
    and the wanted modalities move against the gradient of that error with respect to the step's
    start (reconstruction guidance):

        x'_wanted - weight loss_scale alpha_t grad sum_given mean (x'_given - y)^2

    for the step's result x', its noise included, and y the given signal at the level that the step
    ends on; not in a step to the clean signal. The gradient passes through the denoiser.

    The official code averages the error over the batch, so that a sample moves less in a larger
    one; here each sample has its own. Official scale S on a batch of b is weight S / b.

    Samples hold the given modalities as the official code leaves them, not the given signal itself:
    after replacement what the last step made of them, else the noisy ones that it began with.

    Attributes:
      clean: signals {modality: [b ...]} of some modalities, not all.
      noise: theirs, same shapes; the official code takes theirs in x_T, and so does `Sampler`.
      weight: 0 is replacement alone.
      loss_scale: 1, or the 2**20 that the official scripts multiply the error by for half
        precision and do not divide out: with it their 3.0 is in truth 3 * 2**20.
    """

    clean: AV
    noise: AV
    weight: float = dataclasses.field(default=0.0, metadata={"static": True})
    loss_scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    def at(self, modality: str, alpha: Any, sigma: Any) -> Array:
        """The given signal of a modality, noised."""
        return alpha * self.clean[modality] + sigma * self.noise[modality]


def held_step(given: Given, advance: Callable[[AV], Any], x: AV, tables: dict[str, Row]) -> Any:
    """Sampling step that is held to the given signals.

    Args:
      advance: the step, from the sample {modality: [b ...]} to a carry with field `x`.
      tables: the step's coefficients of each modality.
    """
    x = x | {m: given.at(m, tables[m]["alpha"], tables[m]["sigma"]) for m in given.clean}
    if not given.weight:
        return advance(x)
    wanted = {m: v for m, v in x.items() if m not in given.clean}

    def error(start: AV) -> tuple[Array, Any]:
        after = advance(x | start)
        total = jnp.zeros(())
        for m in given.clean:
            abar = tables[m]["abar_next"]
            y = given.at(m, jnp.sqrt(abar), jnp.sqrt(1 - abar))
            # A sum of the samples' means: each sample's gradient is its own.
            total += jnp.mean(jnp.square(after.x[m] - y), axis=range(1, y.ndim)).sum()
        return given.loss_scale * total, after

    gradient, after = jax.grad(error, has_aux=True)(wanted)
    for m, g in gradient.items():
        reach = jnp.where(tables[m]["abar_next"] < 1, given.weight * tables[m]["alpha"], 0.0)
        x = x | {m: after.x[m] - reach * g}
    return after._replace(x=x)


def check_given(
    given: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    steppers: Mapping[str, Stepper],
    num_substeps: int,
    weight: float,
) -> None:
    """ValueError unless signals of these modalities and shapes [b ...] can be given."""
    known = sorted(steppers)
    if not given or not set(given) < set(known):
        raise ValueError(f"given are {sorted(given)}: give at least one of {known}, but not all.")
    for m, x in given.items():
        if tuple(x.shape) != shapes[m]:
            raise ValueError(
                f"the given {m} has shape {tuple(x.shape)}, but the samples have {shapes[m]}: give "
                "one encoded signal for each."
            )
    if weight < 0:
        raise ValueError(f"weight must be 0 (replacement) or positive, got {weight}.")
    if num_substeps > 1:
        raise ValueError(f"conditional steps are not repeated, got {num_substeps} each.")
    staged = sorted(m for m in known if steppers[m].staged)
    if weight and staged:
        raise ValueError(
            f"the steppers of {staged} take a step in several rows, where no row ends on the "
            "noise level that the gradient compares: use a multistep or an ancestral sampler."
        )

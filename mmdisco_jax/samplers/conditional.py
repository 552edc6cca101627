# SPDX-License-Identifier: Apache-2.0
"""Some modalities given, the others sampled, by a joint model that was never trained for it.

MM-Diffusion (2212.09478, section 3.4), for any split of the modalities into given and wanted.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax.samplers.sample import Sampling
from mmdisco_jax.types import AV


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditional(Sampling):
    """A `Sampling` that is held to what is given: `run.proceed(run.begin(x_T), 0, n)[0]`.

    Before every step the given modalities are noised to its level, always with the same noise
    (replacement). With weight > 0 the step is also compared with what it should have made of them,
    and the wanted modalities move against the gradient of that error with respect to the step's
    start (reconstruction guidance):

        x'_wanted - weight loss_scale alpha_t grad sum_given mean (x'_given - y)^2

    for the step's result x', its noise included, and y the given signal at the level that the step
    ends on; not in a step to the clean signal. The gradient passes through the denoiser.

    The official code averages the error over the batch, so that a sample moves less in a larger
    one; here each sample has its own. Official scale S on a batch of b is weight S / b.

    Attributes:
      given: clean signals {modality: [b ...]} of some modalities, not all.
      fixed: their noise, same shapes; the official code takes theirs in x_T.
      weight: 0 is replacement alone.
      loss_scale: 1, or the 2**20 that the official scripts multiply the error by for half
        precision and do not divide out: with it their 3.0 is in truth 3 * 2**20.

    Samples hold the given modalities as the official code leaves them, not the given signal itself:
    after replacement what the last step made of them, else the noisy ones that it began with.
    """

    given: AV
    fixed: AV
    weight: float = 0.0
    loss_scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        known = sorted(self.steppers)
        if not self.given or not set(self.given) < set(known):
            raise ValueError(
                f"given are {sorted(self.given)}: give at least one of {known}, but not all."
            )
        for m, x in self.given.items():
            if m not in self.fixed or self.fixed[m].shape != x.shape:
                found = self.fixed[m].shape if m in self.fixed else "nothing"
                raise ValueError(f"the fixed noise of {m} must have shape {x.shape}, got {found}.")
        if self.weight < 0:
            raise ValueError(f"weight must be 0 (replacement) or positive, got {self.weight}.")
        if self.num_substeps > 1:
            raise ValueError(f"conditional steps are not repeated, got {self.num_substeps} each.")
        staged = sorted(m for m in known if getattr(self.steppers[m], "staged", False))
        if self.weight and staged:
            raise ValueError(
                f"the steppers of {staged} take a step in several rows, where no row ends on the "
                "noise level that the gradient compares: use a multistep or an ancestral sampler."
            )

    def step(self, carry: Any, row: Any) -> Any:
        """One step of all modalities, the given ones put in their place first."""
        (x, memory, plan), (_, _, rows) = carry, row
        x = x | {m: self._noised(m, rows[m]["alpha"], rows[m]["sigma"]) for m in self.given}
        if not self.weight:
            return super().step((x, memory, plan), row)
        wanted = {m: v for m, v in x.items() if m not in self.given}

        def error(start: AV) -> tuple[Any, Any]:
            after = super(Conditional, self).step((x | start, memory, plan), row)
            total = 0.0
            for m in self.given:
                abar = rows[m]["abar_next"]
                y = self._noised(m, jnp.sqrt(abar), jnp.sqrt(1 - abar))
                # A sum of the samples' means: each sample's gradient is its own.
                total += jnp.mean(jnp.square(after[0][m] - y), axis=range(1, y.ndim)).sum()
            return self.loss_scale * total, after

        gradient, (after, memory, plan) = jax.grad(error, has_aux=True)(wanted)
        for m, g in gradient.items():
            reach = jnp.where(rows[m]["abar_next"] < 1, self.weight * rows[m]["alpha"], 0.0)
            x = x | {m: after[m] - reach * g}
        return x, memory, plan

    def _noised(self, modality: str, alpha: Any, sigma: Any) -> Any:
        return alpha * self.given[modality] + sigma * self.fixed[modality]

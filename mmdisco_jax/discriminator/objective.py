# SPDX-License-Identifier: Apache-2.0
"""One training step's loss of a discriminator: noise a batch, make fakes, weigh the two losses.

Samples come in groups that share a noise level, so that fakes can be made by mismatching within a
group at the price of the fusion alone, when the discriminator offers its towers (`features`) and
its fusion (`fuse`) apart.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmdisco_jax.discriminator import losses
from mmdisco_jax.process.noising import TimeSampler, add_noise, draw_noise, mean_by_level
from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule
from mmdisco_jax.types import AV, Array, Cond, DenoiseFn, LogRatioFn

_DROPS = 4  # folded into a step's key; the key's own split has four other uses
FAKES = ("mismatched", "generated", "generated_pairs", "both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """Settings of the discriminator's training objective.

    Attributes:
      groups: noise levels in a batch.
      shifts: mismatched fakes per real pair.
      fakes: "mismatched" (real sound with another clip's picture), "generated" (both by the base
        models, independently), "generated_pairs" (as a joint base model made them together), or
        "both" of the first two.
      ce_weight, denoising_weight: weights of the cross-entropy and of the denoising term.
      denoising_samples: real pairs per batch in the denoising term.
      denoising_from: step at which the denoising term starts. It is expensive, and uninformative
        while the logit is still untrained.
      level_start, level_warmup_steps: the noise levels grow from this share of their range to all
        of it over so many steps, so that the discriminator first learns at low noise.
      text_dropout: share of texts that are left out.

    Raises:
      ValueError: an unknown kind of fakes, or settings that leave nothing to learn.
    """

    groups: int = 8
    shifts: int = 2
    fakes: str = "mismatched"
    ce_weight: float = 1.0
    denoising_weight: float = 1.0
    denoising_samples: int = 16
    denoising_from: int = 300
    level_start: float = 0.3
    level_warmup_steps: int = 300
    text_dropout: float = 0.0

    def __post_init__(self):
        if self.fakes == "repaired":
            raise ValueError('fakes="repaired" is now called "mismatched": write that instead.')
        if self.fakes not in FAKES:
            raise ValueError(f"unknown fakes {self.fakes!r}: choose one of {', '.join(FAKES)}.")
        if not 0 < self.level_start <= 1:
            raise ValueError(f"level_start is a share in (0, 1], got {self.level_start}.")
        if (
            self.ce_weight < 0
            or self.denoising_weight < 0
            or not self.ce_weight + self.denoising_weight
        ):
            raise ValueError(
                "loss weights must be >= 0 and not both 0, got "
                f"ce_weight={self.ce_weight}, denoising_weight={self.denoising_weight}."
            )
        if not self.ce_weight and self.denoising_from:
            raise ValueError(
                f"without cross-entropy nothing would be learnt before step denoising_from="
                f"{self.denoising_from}: set it to 0."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Inputs of the objective: schedules, levels, base models, and the residual of a log-ratio."""

    schedules: dict[str, Schedule]
    time_sampler: TimeSampler
    denoise: DenoiseFn
    residual: Callable[[LogRatioFn], Callable[[AV, Array, Any], AV]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Embedded texts {m: ...}: of the real pairs [b ...], of the generated ones [n ...] if there
    are any, and none, the empty text [1 ...].
    """

    real: AV
    generated: AV | None
    none: AV

    def dropped(self, some: AV, key: Array, share: float) -> AV:
        """Texts [b ...] of which this share is empty, in all modalities at once; float32."""
        empty = jax.random.bernoulli(key, share, (len(next(iter(some.values()))),))
        wide = {m: x.astype(jnp.float32) for m, x in some.items()}
        return {m: jnp.where(per_sample(empty, x), self.none[m], x) for m, x in wide.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sources:
    """Noisy real pairs and their texts; clean generated ones; all texts, and a key to drop some."""

    x_t: AV
    cond: Cond
    generated: AV | None
    texts: Texts | None
    key: Array


def objective(
    model: Any,
    x0: AV,
    generated: AV | None,
    key: Array,
    step: Array,
    problem: Problem,
    spec: ObjectiveSpec,
    texts: Texts | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The loss and its metrics for clean real pairs x0 {m: [b ...]}.

    generated: clean fake samples {m: [n ...]} of the base models; sound and picture are drawn from
    them independently, so n of each give n^2 fake pairs; or together, for "generated_pairs". None
    when spec.fakes is "mismatched".
    texts: what the pairs are conditioned on. Both halves of a fake must come of one text, so only
    "generated_pairs" will do.
    """
    if texts and spec.ce_weight and spec.fakes != "generated_pairs":
        raise ValueError(
            f"fakes {spec.fakes!r} pair sounds and pictures of different texts: with texts, train "
            "on fakes='generated_pairs'."
        )
    drop_keys = jax.random.split(jax.random.fold_in(key, _DROPS))
    cond = texts.dropped(texts.real, drop_keys[0], spec.text_dropout) if texts else None
    keys = jax.random.split(key, 4)
    batch = next(iter(x0.values())).shape[0]
    t = jnp.repeat(problem.time_sampler(keys[0], spec.groups), batch // spec.groups)
    if spec.level_warmup_steps:
        share = spec.level_start + (1 - spec.level_start) * step / spec.level_warmup_steps
        t = (t * jnp.minimum(share, 1.0)).astype(jnp.int32)
    eps = draw_noise(keys[1], x0)
    x_t = add_noise(x0, eps, t, problem.schedules)
    loss, metrics = jnp.zeros(()), {}
    if spec.ce_weight:
        sources = _Sources(x_t=x_t, cond=cond, generated=generated, texts=texts, key=drop_keys[1])
        real, fake = _logits(model, sources, t, keys[2:], problem, spec)
        ce = losses.cross_entropy(real, fake)
        loss += spec.ce_weight * ce
        metrics |= {"ce": ce} | _classification(real, fake, t, problem.time_sampler.num_timesteps)
    if spec.denoising_weight:
        stride = batch // spec.denoising_samples
        some = {m: x_t[m][::stride] for m in x_t}
        some_eps = {m: eps[m][::stride] for m in eps}
        some_cond = jax.tree.map(lambda c: c[::stride], cond)

        def term() -> tuple[Array, dict[str, Array]]:
            return _denoising(model, some, some_eps, t[::stride], some_cond, problem)

        def none_yet() -> tuple[Array, dict[str, Array]]:
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(term))

        gain, more = jax.lax.cond(step >= spec.denoising_from, term, none_yet)
        loss += spec.denoising_weight * gain
        metrics |= more
    return loss, metrics


def _logits(
    model: Any,
    sources: _Sources,
    t: Array,
    keys: Array,
    problem: Problem,
    spec: ObjectiveSpec,
) -> tuple[Array, Array]:
    """Logits of real pairs [b] and of fakes [k, b]: each fake at its real pair's noise level."""
    x_t = sources.x_t
    split = hasattr(model, "features")
    features = model.features(x_t, t) if split else x_t
    score = model.fuse if split else model
    text = () if sources.cond is None else (sources.cond,)
    real, fakes = score(features, t, *text), []
    if spec.fakes in ("mismatched", "both"):
        many = jnp.tile(t, spec.shifts)
        audio = losses.mismatched(features["audio"], spec.groups, spec.shifts)
        video = jnp.concatenate([features["video"]] * spec.shifts)
        fakes.append(score({"audio": audio, "video": video}, many).reshape(spec.shifts, -1))
    if spec.fakes != "mismatched":
        fakes.append(_generated_logits(model, sources, t, keys, problem, spec)[None])
    return real, jnp.concatenate(fakes)


def _generated_logits(
    model: Any, sources: _Sources, t: Array, keys: Array, problem: Problem, spec: ObjectiveSpec
) -> Array:
    """Logits [b] of fakes that the base models made, noised to t [b]."""
    generated: Any = sources.generated
    all_texts: Any = sources.texts
    drawn, draws = {}, list(jax.random.split(keys[0]))
    if spec.fakes == "generated_pairs":
        draws = [draws[0]] * len(generated)
    index = None
    for m, k in zip(sorted(generated), draws, strict=True):
        index = jax.random.randint(k, t.shape, 0, generated[m].shape[0])
        drawn[m] = generated[m][index].astype(jnp.float32)
    noisy = add_noise(drawn, draw_noise(keys[1], drawn), t, problem.schedules)
    if all_texts is None:
        return model(noisy, t)
    texts = {m: x[index] for m, x in all_texts.generated.items()}
    return model(noisy, t, all_texts.dropped(texts, sources.key, spec.text_dropout))


def _classification(real: Array, fake: Array, t: Array, num_timesteps: int) -> dict[str, Array]:
    """Loss and accuracy by noise level, and the counts of a calibration curve."""
    ce = 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(fake).mean(0))
    accuracy = 0.5 * ((real > 0) + (fake < 0).mean(0))
    metrics = mean_by_level({"ce": ce, "accuracy": accuracy}, t, num_timesteps)
    # Reals and fakes weigh half each, as in the loss, so a calibrated D has share == probability.
    bins = jnp.arange(10)
    in_real = (jnp.floor(jax.nn.sigmoid(real) * 10)[:, None] == bins).mean(0)
    in_fake = (jnp.floor(jax.nn.sigmoid(fake.ravel()) * 10)[:, None] == bins).mean(0)
    share = in_real / (in_real + in_fake)
    return (
        metrics | {"accuracy": accuracy.mean()} | {f"real_share/{i}": share[i] for i in range(10)}
    )


def _denoising(model, x_t, eps, t, cond, problem) -> tuple[Array, dict[str, Array]]:
    base = jax.lax.stop_gradient(problem.denoise(x_t, t, cond))
    r = problem.residual(lambda x, level, c: model(x, level, *(() if c is None else (c,))))
    r = r(x_t, t, cond)
    gain, by_modality = losses.denoising(r, eps, base)
    scale = losses.best_scale(r, eps, base)
    metrics = {f"denoising_{m}": v for m, v in by_modality.items()}
    return gain, metrics | {"denoising": gain} | {f"best_scale_{m}": v for m, v in scale.items()}

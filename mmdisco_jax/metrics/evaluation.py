# SPDX-License-Identifier: Apache-2.0
"""Evaluation of sets of clips by named metrics, with paired differences between sets."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from mmdisco_jax.io import to_int16
from mmdisco_jax.metrics import METRICS, bootstrap
from mmdisco_jax.metrics.api import (
    Batch,
    Comparable,
    Context,
    Metric,
    Result,
    State,
    Weighted,
)
from mmdisco_jax.metrics.report import Difference, Report, Unmeasured
from mmdisco_jax.progress import Progress

ONE_SET = "clips"  # what a set without a name is called
# What a metric raises where it cannot be made: too few clips, no reference, a missing file or
# package. Anything else is a fault and stops the evaluation.
CANNOT = (ValueError, OSError, ImportError)


def evaluate(
    clips: Batch | Mapping[str, Batch],
    *,
    metrics: Iterable[str],
    fps: float,
    sample_rate_hz: int,
    reference: Batch | None = None,
    training: Batch | Iterable[Batch] | None = None,
    weights: Mapping[str, str] = MappingProxyType({}),
    prompts: Sequence[str] | None = None,
    compare: Sequence[tuple[str, str]] = (),
    replicates: int = 1000,
    seed: int = 0,
) -> Report:
    """Measures one or several sets of clips.

    Metrics that depend on the number of clips take the first n of each set, with one n for all.

    Args:
      clips: one set, {"video": uint8 [n f h w 3], "audio": int16 or float in [-1, 1] [n samples]},
        or several by name, {name: set}.
      metrics: names of the registry `METRICS`, or "package.module:attribute" of your own factory
        `Context -> Metric`.
      fps, sample_rate_hz: frames and samples a second.
      reference: a set of real clips that no model was trained on, for the metrics that compare two
        sets.
      training: the clips that the models were trained on, for the metrics that look for copies: a
        set, or batches that can be read more than once, such as a list.
      weights: paths of weight files by metric, for the metrics that are networks.
      prompts: the text of each clip, for the metrics that read it.
      compare: pairs of sets, such as ("guided", "independent"), whose clips of the same number
        share their noise: the report has the differences of the first to the second.
      replicates, seed: of the bootstrap over clips.

    Returns:
      The report; a mapping from the name of each set ("clips" for one without a name) to its
      results. A metric or comparison that cannot be made is in its `unmeasured`, with the reason.

    Raises:
      ValueError: an unknown metric, clips of another form, or no metric that could be made.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    sets = {name: _whole(one, name) for name, one in _sets(clips).items()}
    _check(names, sets, compare)
    context = Context(
        fps=fps,
        sample_rate_hz=sample_rate_hz,
        reference=None if reference is None else _whole(reference, "reference"),
        training=_batches(training),
        weights=weights,
        prompts=prompts,
        replicates=replicates,
        seed=seed,
    )
    bar = Progress(names, what="measure", unit="metric", leave=False, hidden=len(sets) < 2)
    return _joined([_measure(name, METRICS.get(name), context, sets, compare) for name in bar])


def _joined(parts: Sequence[Report]) -> Report:
    """One report of all metrics; ValueError if none could be made."""
    report = Report(
        rows={name: tuple(r for part in parts for r in part[name]) for name in parts[0]},
        differences=tuple(d for part in parts for d in part.differences),
        unmeasured=tuple(u for part in parts for u in part.unmeasured),
    )
    if not any(report.values()):
        raise ValueError(f"nothing could be measured. {'; '.join(map(str, report.unmeasured))}")
    return report


def _check(names: list[str], sets: Mapping[str, Batch], compare: Sequence[tuple[str, str]]) -> None:
    """ValueError for what is misspelt, before anything is measured."""
    if not names:
        raise ValueError(f"no metrics were named: choose some of {', '.join(METRICS.names())}.")
    for name in names:
        METRICS.get(name)
    for pair in compare:
        if set(pair) - set(sets):
            raise ValueError(f"compare={pair} names no set: choose from {list(sets)}.")


def _measure(
    name: str,
    make: Any,
    context: Context,
    sets: Mapping[str, Batch],
    compare: Sequence[tuple[str, str]],
) -> Report:
    """One metric on every set, and its comparisons."""
    try:
        metric: Metric = make(context)
    except CANNOT as error:
        return Report(
            rows=dict.fromkeys(sets, ()), unmeasured=(Unmeasured(name=name, reason=str(error)),)
        )
    counts = _counts(metric, sets)
    rows: dict[str, tuple[Result, ...]] = {}
    states: dict[str, State] = {}
    unmeasured: list[Unmeasured] = []
    for one, batch in sets.items():
        try:
            batch = {key: x[: counts[one]] for key, x in batch.items()}
            state = metric.update(metric.init(), batch)
            rows[one] = metric.compute(state)
            states[one] = state
        except CANNOT as error:
            rows[one] = ()
            unmeasured.append(Unmeasured(name=name, on=one, reason=str(error)))
    differences: list[Difference] = []
    for left, right in compare:
        if not isinstance(metric, Comparable) or not {left, right} <= set(states):
            continue  # the reason is among the unmeasured
        if counts[left] != counts[right]:
            reason = (
                f"{counts[left]} and {counts[right]} clips do not pair up: sample as many of each"
            )
            unmeasured.append(Unmeasured(name=f"{name}, {left} - {right}", reason=reason))
            continue
        measures = [metric.weighted(states[one]) for one in (left, right)]
        differences += _differences((left, right), metric.protocol, measures, context)
    return Report(rows=rows, differences=tuple(differences), unmeasured=tuple(unmeasured))


def _counts(metric: Metric, sets: Mapping[str, Batch]) -> dict[str, int]:
    """How many clips of each set a metric takes: all, or the same number of each.

    A set that is too small for the metric does not cut the others.
    """
    counts = {name: len(next(iter(batch.values()))) for name, batch in sets.items()}
    if not getattr(metric, "equal_numbers", False):
        return counts
    least = getattr(metric, "min_clips", 1)
    common = min((n for n in counts.values() if n >= least), default=0)
    return {name: min(n, common) if n >= least else n for name, n in counts.items()}


def _differences(
    pair: tuple[str, str],
    protocol: str,
    measures: Sequence[Sequence[Weighted]],
    context: Context,
) -> list[Difference]:
    """Differences of the measures of two sets, and ratios where they say something."""
    found = []
    for one, other in zip(*measures, strict=True):
        change = _difference(one, other, context)
        kinds = {"-": change}
        if one.has_ratio and other.value > 0:
            kinds["/"] = _ratio(one, other, context)
        for kind, (value, low, high) in kinds.items():
            found.append(
                Difference(
                    name=one.name,
                    protocol=protocol,
                    left=pair[0],
                    right=pair[1],
                    kind=kind,
                    value=value,
                    low=low,
                    high=high,
                    n=one.n,
                )
            )
    return found


def _difference(one: Weighted, other: Weighted, context: Context) -> tuple[float, float, float]:
    if not one.num_reference:
        return bootstrap.paired(
            one.of, other.of, one.n, replicates=context.replicates, seed=context.seed
        )
    return bootstrap.of_comparison(
        lambda *weights: one.of(*weights) - other.of(*weights),
        (one.n, one.num_reference),
        replicates=min(context.replicates, bootstrap.MAX_REPLICATES),
        seed=context.seed,
        unbiased=one.value - other.value,
    )


def _ratio(one: Weighted, other: Weighted, context: Context) -> tuple[float, float, float]:
    """By the logarithm, so that the interval is positive and the same whichever is above."""
    value, low, high = bootstrap.of_comparison(
        lambda *weights: np.log(one.of(*weights)) - np.log(other.of(*weights)),
        (one.n, one.num_reference),
        replicates=min(context.replicates, bootstrap.MAX_REPLICATES),
        seed=context.seed,
    )
    return float(np.exp(value)), float(np.exp(low)), float(np.exp(high))


def _sets(clips: Batch | Mapping[str, Batch]) -> dict[str, Batch]:
    if not clips:
        raise ValueError("there are no clips: pass a set with 'video' and 'audio', or some by name")
    if all(isinstance(one, Mapping) for one in clips.values()):
        return dict(cast(Mapping[str, Batch], clips))
    return {ONE_SET: cast(Batch, clips)}


def _batches(training: Batch | Iterable[Batch] | None) -> Iterable[Batch] | None:
    """A set as one batch, and batches as they are."""
    return (cast(Batch, training),) if isinstance(training, Mapping) else training


def _whole(clips: Batch, name: str) -> Batch:
    """The set on the host with int16 sound; metrics check the rest."""
    arrays = {key: np.asarray(value) for key, value in clips.items()}
    if "audio" in arrays and arrays["audio"].dtype != np.int16:
        try:
            arrays["audio"] = to_int16(arrays["audio"])
        except ValueError as error:
            raise ValueError(f"the audio of {name!r}: {error}") from error
    return arrays

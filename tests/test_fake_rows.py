# SPDX-License-Identifier: Apache-2.0
"""Fakes of a batch: the same for any number of processes, drawn as the objective's key says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.discriminator.objective import ObjectiveSpec, fake_indices
from mmdisco_jax.losses import FakeRows
from mmdisco_jax.sections import Training
from mmdisco_jax.training.state import _parts

NAMES, SIZE, NUMBER, SEED = ("audio", "video"), 8, 50, 3


class Source:
    """Record i holds i, as sound, as picture and as the sound's text."""

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: np.full(2, index, np.float16) for name in (*NAMES, "text_audio")}


def rows_of(parts: int = 1, fakes: str = "generated") -> FakeRows:
    spec = ObjectiveSpec(fakes=fakes)
    train = Training(batch_size=SIZE, num_microbatches=parts, objective=spec)
    source: Any = Source()
    return FakeRows(source, NAMES, train, SEED)


def key_of(step: int) -> jax.Array:
    """The key that a training step gives to its loss."""
    return jax.random.fold_in(jax.random.key(SEED + 1), jnp.int32(step))


@pytest.mark.parametrize("step", [0, 63, 64, 1000])
@pytest.mark.parametrize("fakes", ["generated", "generated_pairs"])
def test_a_step_takes_the_fakes_of_its_key(step, fakes):
    found = rows_of(fakes=fakes)(step)
    wanted = fake_indices(key_of(step), NAMES, SIZE, NUMBER, fakes)
    for m in NAMES:
        np.testing.assert_array_equal(found[f"fake_{m}"][:, 0], wanted[m])
    np.testing.assert_array_equal(found["fake_text_audio"], found["fake_audio"])
    assert np.array_equal(found["fake_audio"], found["fake_video"]) == (fakes == "generated_pairs")


def test_each_part_of_a_batch_takes_those_of_its_own_key():
    found = rows_of(parts=2)(5)
    for part in range(2):
        key = jax.random.fold_in(key_of(5), part)
        wanted = fake_indices(key, NAMES, SIZE // 2, NUMBER, "generated")
        for m in NAMES:
            mine = _parts(jnp.asarray(found[f"fake_{m}"]), 2)[part]
            np.testing.assert_array_equal(mine[:, 0], wanted[m])


def test_processes_share_the_fakes_of_a_step(monkeypatch):
    whole, parts = rows_of()(7), []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for number in range(2):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        parts.append(rows_of()(7))
    for name, x in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), x)

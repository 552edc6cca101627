# SPDX-License-Identifier: Apache-2.0
"""Start of a training: given parameters, or drawn ones."""

import dataclasses

import jax
import numpy as np

from mmdisco_jax.parallel import make_mesh
from mmdisco_jax.training.checkpoints import Checkpoints
from mmdisco_jax.training.loop import LoopSpec
from mmdisco_jax.training.session import train
from tests.support import toy_training as toy


def _first_step(task, workdir):
    mesh = make_mesh({"data": -1, "fsdp": 1}, devices=jax.devices()[:1])
    spec = LoopSpec(num_steps=1, log_every=1, save_every=1)
    with Checkpoints(workdir / "checkpoints", toy.CONFIG, keep=1) as checkpoints:
        return train(task, toy.Batches(), spec, mesh, workdir, checkpoints).params


def test_given_parameters_take_the_place_of_drawn_ones(tmp_path):
    task = toy.task()
    start = task.init(jax.random.key(5))
    given = _first_step(dataclasses.replace(task, start=start), tmp_path / "given")
    drawn = _first_step(dataclasses.replace(task, init=lambda key: start), tmp_path / "drawn")
    other = _first_step(task, tmp_path / "other")
    for name in start:
        np.testing.assert_array_equal(given[name], drawn[name])
        assert np.any(given[name] != other[name])

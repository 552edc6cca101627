# SPDX-License-Identifier: Apache-2.0
"""Denoiser and log-ratio of a system: pytrees of parameters, of modalities with any names.

Three base models from outside the package make "smell", "sound" and "touch".
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.experiment import Experiment
from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.pair import BaseDenoiser, DiscriminatorLogRatio
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.system import System

OUTSIDE = "tests.support.outside"
CODECS = {
    "smell": {"name": f"{OUTSIDE}.codec:FrameColour"},
    "sound": {"name": f"{OUTSIDE}.codec:Volume", "block": 500},
    "touch": {"name": f"{OUTSIDE}.codec:Volume", "block": 1000},
}
SCALES = {"smell": 2.0, "sound": 0.0, "touch": 5.0}


def system_of(folder: Path, width: int = 8) -> System:
    """A system whose random weights are written to `folder`."""
    names = [*CODECS, "discriminator"]
    weights = {name: str(folder / f"{name}.safetensors") for name in names}
    recipe = {"name": f"{OUTSIDE}.base:PointwiseBase", "width": width}
    stepper = {"name": f"{OUTSIDE}.stepper:Euler"}
    config = {
        "clip": {"seconds": 1.0, "fps": 4, "height": 16, "width": 16, "sample_rate_hz": 8000},
        "bases": {m: {**recipe, "codec": codec} for m, codec in CODECS.items()},
        "discriminator": {"name": f"{OUTSIDE}.discriminator:build", "width": width},
        "weights": weights,
        "sample": {
            "num_steps": 3,
            "samplers": dict.fromkeys(CODECS, stepper),
            "variants": {"alone": {}, "guided": {"scales": SCALES}},
        },
    }
    system = System(Experiment.from_config(config))
    definitions = {**system.definitions, "discriminator": system.discriminator}
    for number, (name, (_, init)) in enumerate(definitions.items()):
        save_weights(weights[name], init(jax.random.key(number)), {})
    return system


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> System:
    return system_of(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def inputs(system) -> tuple[Any, jax.Array]:
    x = {
        m: jax.random.normal(jax.random.key(i), (2, *shape))
        for i, (m, shape) in enumerate(system.shapes.items())
    }
    return x, jnp.array([100, 800])


def test_a_system_of_three_modalities_has_their_names(system):
    assert set(system.modalities) == set(CODECS) == set(system.schedules)
    assert system.shapes == {"smell": (4, 3), "sound": (16, 1), "touch": (8, 1)}


def test_leaves_are_the_parameters_alone(system):
    denoise, log_ratio = system.denoise, system.log_ratio
    assert isinstance(denoise, BaseDenoiser) and isinstance(log_ratio, DiscriminatorLogRatio)
    for tree, params in ((denoise, system.base_params), (log_ratio, log_ratio.params)):
        leaves = jax.tree.leaves(tree)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        assert {id(leaf) for leaf in leaves} == {id(leaf) for leaf in jax.tree.leaves(params)}
    again = jax.tree.map(lambda x: x, denoise)
    assert jax.tree.structure(again) == jax.tree.structure(denoise)


def test_each_base_is_told_its_own_modality(system, inputs):
    x, t = inputs
    eps = system.denoise(x, t)
    assert {m: e.shape for m, e in eps.items()} == {m: v.shape for m, v in x.items()}
    other = system.denoise({**x, "touch": 2 * x["touch"]}, t)
    np.testing.assert_array_equal(other["smell"], eps["smell"])
    assert (other["touch"] != eps["touch"]).any()
    assert system.denoise({"sound": x["sound"]}, t).keys() == {"sound"}


def test_joint_of_the_parts_is_the_denoiser_that_samples(system, inputs):
    x, t = inputs
    guided = joint(system.denoise, system.log_ratio, system.schedules, SCALES)
    mine, theirs = guided(x, t, None), system.denoiser("guided")(x, t, None)
    alone = system.denoiser("alone")(x, t, None)
    gradient = jax.grad(lambda v: system.log_ratio(v, t).sum())(x)
    for m in CODECS:
        np.testing.assert_array_equal(mine[m], theirs[m])
        sigma = system.schedules[m].sigma(t).reshape(-1, *[1] * (x[m].ndim - 1))
        by_hand = system.denoise(x, t)[m] - SCALES[m] * sigma * gradient[m]
        np.testing.assert_allclose(mine[m], by_hand, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mine["sound"], alone["sound"])
    assert (mine["touch"] != alone["touch"]).any()
    sampler = system.sampler("guided")
    one, other, free = (
        sampler.run(f, system.shapes, seed=1, indices=range(2))
        for f in (guided, system.denoiser("guided"), system.denoise)
    )
    for m in CODECS:
        np.testing.assert_array_equal(one[m], other[m])
    assert (one["smell"] != free["smell"]).any()
    np.testing.assert_array_equal(one["sound"], free["sound"])


def test_parameters_are_arguments_of_a_compiled_program(system, inputs, tmp_path):
    """The program's text does not grow with the networks: none of their numbers are in it."""
    wide = system_of(tmp_path, width=64)
    x, t = inputs

    def text(one: System) -> str:
        guided = joint(one.denoise, one.log_ratio, one.schedules, SCALES)
        return jax.jit(lambda f, x, t: f(x, t, None)).lower(guided, x, t).as_text()

    def sizes(one: System) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves((one.denoise, one.log_ratio)))

    assert sizes(wide) > 5 * sizes(system)
    assert len(text(wide)) < 1.05 * len(text(system))

# SPDX-License-Identifier: Apache-2.0
"""The sampling loop: a plain loop in disguise, blind to the batch, equal on many devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.guidance.joint import joint
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.dpm_solver import DPMSolverPP2M
from mmdisco_jax.samplers.grids import timesteps
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.programs import Programs, stretch_of
from mmdisco_jax.samplers.sample import Sampling, renoise, sample, step_tables
from tests.support.gaussian_pair import JointGaussian
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, Gaussian, network, no_noise

GRID = timesteps(SCHEDULES["audio"], 6, "leading")
STEPPERS = {"audio": DPMSolverPP2M(), "video": DDPM()}  # one per modality, of different memory
# A batch of another size is compiled to other vector code; float32 rounding then differs.
ROUNDING = 2e-6


def _run(indices, **options):
    keys = sample_keys(11, jnp.asarray(indices))
    x_T = initial(keys, SHAPES)
    return sample(network(), x_T, STEPPERS, SCHEDULES, GRID, keyed(keys), **options)


@pytest.mark.parametrize("num_substeps", [1, 3])
def test_the_scan_is_a_python_loop(num_substeps):
    keys = sample_keys(11, jnp.arange(2))
    noise, denoise = keyed(keys), jax.jit(network())
    x = initial(keys, SHAPES)
    tables = {m: step_tables(STEPPERS[m], SCHEDULES[m], GRID, num_substeps, jnp.float32) for m in x}
    memory = {m: STEPPERS[m].init(x[m]) for m in x}
    for i, t in zip(jnp.arange(len(GRID)), GRID, strict=True):
        rows = {m: {k: v[i] for k, v in tables[m].items()} for m in x}
        for j in range(num_substeps):
            if j:
                x = {m: renoise(x[m], rows[m], noise(i, 2 * j, m, x[m].shape)) for m in x}
            eps = denoise(x, jnp.full(2, t), None)
            done = {}
            for m in x:
                z = noise(i, 2 * j + 1, m, x[m].shape)
                done[m] = STEPPERS[m].step(x[m], eps[m], rows[m], memory[m], z)
            x = {m: done[m][0] for m in x}
        memory = {m: done[m][1] for m in x}
    got = _run(range(2), num_substeps=num_substeps)
    for m in x:
        np.testing.assert_allclose(got[m], x[m], atol=2e-5)


def test_a_sample_does_not_depend_on_its_batch():
    batch, alone = _run(range(8)), _run([5])
    for m in SHAPES:
        np.testing.assert_allclose(batch[m][5], alone[m][0], rtol=ROUNDING, atol=ROUNDING)


def test_strength_zero_is_two_independent_samplers_bit_for_bit():
    world = JointGaussian(0.8, (0.5, -1.0), (1.0, 0.4), (SCHEDULES["audio"], SCHEDULES["video"]))
    keys = sample_keys(2, jnp.arange(16))
    x_T = initial(keys, {m: (1,) for m in SCHEDULES})

    def run(denoise, start):
        return sample(denoise, start, STEPPERS, SCHEDULES, GRID, keyed(keys))

    scales = {m: 0.0 for m in SCHEDULES}
    pair = run(joint(world.marginals, world.log_ratio, SCHEDULES, scales), x_T)
    for i, m in enumerate(SCHEDULES):

        def one(x, t, cond, m=m, i=i):
            other = {k: jnp.zeros_like(x[m]) for k in SCHEDULES}
            return {m: world.marginals(other | x, t)[m]}

        assert np.array_equal(run(one, {m: x_T[m]})[m], pair[m])


def test_many_devices_sample_what_one_does():
    """Eight forced host devices, the batch sharded over them; its own process, for XLA's flags."""
    flags = "--xla_force_host_platform_device_count=8"
    root = Path(__file__).parents[2]
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.support.sharded_sampling"]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("8 devices")


def test_kept_steps_are_the_last_of_each_stride():
    grid, world = timesteps(linear(), 7), Gaussian(linear())
    x_T = {"x": jax.random.normal(jax.random.key(0), (2, 3))}

    def run(**options):
        steppers, schedules = {"x": DDIM()}, {"x": linear()}
        return sample(world.eps, x_T, steppers, schedules, grid, no_noise(), **options)

    x, every = run(keep_every=1)
    assert np.array_equal(every["x"][-1], x["x"]) and every["x"].shape == (7, 2, 3)
    assert np.array_equal(x["x"], run()["x"])
    _, third = run(keep_every=3)
    assert np.array_equal(third["x"], every["x"][2::3])
    for bad in (0, 8):
        with pytest.raises(ValueError, match=r"keep_every must be in 1\.\.7"):
            run(keep_every=bad)


def test_stretches_of_a_sampling_are_the_whole_of_it():
    def sampling(indices):
        keys = sample_keys(11, indices)
        return keys, Sampling(network(), STEPPERS, SCHEDULES, GRID, keyed(keys), num_substeps=2)

    def begin(indices):
        keys, run = sampling(indices)
        return run.begin(initial(keys, SHAPES))

    def proceed(indices, carry, first):
        return sampling(indices)[1].proceed(carry, first, 3)

    programs = Programs(jax.jit(begin), jax.jit(proceed), len(GRID), 3)
    whole, seen = jax.jit(lambda i: _run(i, num_substeps=2))(jnp.arange(2)), []
    for run in (programs, programs.compile(jnp.arange(2))):
        parts = run(jnp.arange(2), on_steps=seen.append)
        for m in SHAPES:
            np.testing.assert_allclose(parts[m], whole[m], rtol=ROUNDING, atol=ROUNDING)
    assert seen == [3, 3, 3, 3]  # progress, told after each stretch


@pytest.mark.parametrize(("num_steps", "stretch"), [(50, 5), (1000, 100), (47, 1), (3, 1), (1, 1)])
def test_a_stretch_divides_the_steps(num_steps, stretch):
    assert stretch_of(num_steps) == stretch


def test_substeps_go_back_and_forth_without_changing_the_law():
    """A step down and the noising back leave a Gaussian what it is, up to the step's own error."""
    world = Gaussian(linear(), mean=0.3, std=0.5)
    keys = sample_keys(3, jnp.arange(10_000))
    grid = timesteps(linear(), 400)

    def run(x_T):
        steppers, schedules = {"x": DDPM()}, {"x": linear()}
        return sample(world.eps, x_T, steppers, schedules, grid, keyed(keys), num_substeps=2)

    x = np.asarray(jax.jit(run)(initial(keys, {"x": (1,)}))["x"])
    assert x.mean() == pytest.approx(0.3, abs=0.02)
    assert x.std() == pytest.approx(0.5, rel=0.05)


def test_no_substep_is_refused():
    with pytest.raises(ValueError, match="num_substeps must be at least 1, got 0"):
        _run([0], num_substeps=0)

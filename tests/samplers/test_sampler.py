# SPDX-License-Identifier: Apache-2.0
"""Sampler: a plain loop in disguise, blind to the batch, whose parameters are arguments."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from mmdisco_jax.guidance.classifier_free import classifier_free
from mmdisco_jax.guidance.joint import Plan, joint
from mmdisco_jax.process.schedules import cosine, linear
from mmdisco_jax.samplers.ddim import DDIM
from mmdisco_jax.samplers.ddpm import DDPM
from mmdisco_jax.samplers.dpm_solver import DPMSolverPP2M
from mmdisco_jax.samplers.levels import Levels, levels
from mmdisco_jax.samplers.noise import initial, keyed, sample_keys
from mmdisco_jax.samplers.sampler import Sampler, chunk_of, renoise, step_tables
from tests.support.gaussian_pair import JointGaussian
from tests.support.gaussian_worlds import SCHEDULES, SHAPES, Gaussian, network, no_noise

PATH = levels(SCHEDULES, 6, "leading")
STEPPERS = {"audio": DPMSolverPP2M(), "video": DDPM()}  # one per modality, of different state
# A batch of another size is compiled to other vector code; float32 rounding then differs.
ROUNDING = 2e-6


def _run(indices, num_substeps=1, **options):
    sampler = Sampler(STEPPERS, SCHEDULES, PATH, num_substeps)
    return sampler.run(network(), SHAPES, seed=11, indices=indices, **options)


@pytest.mark.parametrize("num_substeps", [1, 3])
def test_the_scan_is_a_python_loop(num_substeps):
    keys = sample_keys(11, jnp.arange(2))
    noise, denoise = keyed(keys), jax.jit(network())
    x = initial(keys, SHAPES)
    tables = {}
    for m in x:
        host = step_tables(STEPPERS[m], SCHEDULES[m], PATH, num_substeps)
        tables[m] = {name: jnp.asarray(v, jnp.float32) for name, v in host.items()}
    states = {m: STEPPERS[m].init(x[m]) for m in x}
    for i, t in zip(jnp.arange(len(PATH)), PATH.times, strict=True):
        rows = {m: {k: v[i] for k, v in tables[m].items()} for m in x}
        for j in range(num_substeps):
            if j:
                x = {m: renoise(x[m], rows[m], noise(i, 2 * j, m, x[m].shape)) for m in x}
            eps = denoise(x, jnp.full(2, t), None)
            done = {}
            for m in x:
                z = noise(i, 2 * j + 1, m, x[m].shape)
                done[m] = STEPPERS[m].step(x[m], eps[m], rows[m], states[m], z)
            x = {m: done[m][0] for m in x}
        states = {m: done[m][1] for m in x}
    got = _run(range(2), num_substeps=num_substeps)
    for m in x:
        np.testing.assert_allclose(got[m], x[m], atol=2e-5)


def test_a_sample_does_not_depend_on_its_batch():
    batch, alone = _run(range(8)), _run([5])
    for m in SHAPES:
        np.testing.assert_allclose(batch[m][5], alone[m][0], rtol=ROUNDING, atol=ROUNDING)


def test_strength_zero_is_two_independent_samplers_bit_for_bit():
    world = JointGaussian(0.8, (0.5, -1.0), (1.0, 0.4), (SCHEDULES["audio"], SCHEDULES["video"]))
    sampler = Sampler(STEPPERS, SCHEDULES, PATH)

    def run(denoise, *modalities):
        return sampler.run(denoise, {m: (1,) for m in modalities}, seed=2, indices=range(16))

    scales = {m: 0.0 for m in SCHEDULES}
    pair = run(joint(world.marginals, world.log_ratio, SCHEDULES, scales), *SCHEDULES)
    for m in SCHEDULES:

        def one(x, t, cond, m=m):
            other = {k: jnp.zeros_like(x[m]) for k in SCHEDULES}
            return {m: world.marginals(other | x, t)[m]}

        assert np.array_equal(run(one, m)[m], pair[m])


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
    world = Gaussian(linear())
    sampler = Sampler({"x": DDIM()}, {"x": linear()}, levels(linear(), 7))
    x_T = {"x": jax.random.normal(jax.random.key(0), (2, 3))}

    def run(**options):
        return sampler.run(world.eps, x_T=x_T, noise=no_noise(), **options)

    x, every = run(keep_every=1)
    assert np.array_equal(every["x"][-1], x["x"]) and every["x"].shape == (7, 2, 3)
    assert np.array_equal(x["x"], run()["x"])
    _, third = run(keep_every=3)
    assert np.array_equal(third["x"], every["x"][2::3])
    for bad in (0, 8):
        with pytest.raises(ValueError, match=r"keep_every must be in 1\.\.7"):
            run(keep_every=bad)


def test_chunks_of_a_sampling_are_the_whole_of_it_bit_for_bit():
    sampler, denoise, seen = Sampler(STEPPERS, SCHEDULES, PATH, 2), network(), []
    options: dict[str, Any] = {"seed": 11, "indices": range(2)}
    silent = sampler.run(denoise, SHAPES, **options)
    told = sampler.run(denoise, SHAPES, on_steps=seen.append, **options)
    compiled = sampler.compile(denoise, SHAPES, **options)
    ahead = compiled(denoise, range(2), on_steps=seen.append)
    whole = jax.jit(lambda i: sampler.run(denoise, SHAPES, seed=11, indices=i))(jnp.arange(2))
    for m in SHAPES:
        assert np.array_equal(silent[m], told[m]) and np.array_equal(silent[m], ahead[m])
        np.testing.assert_allclose(silent[m], whole[m], rtol=ROUNDING, atol=ROUNDING)
    assert seen == [1] * 2 * len(PATH) and compiled.num_steps == len(PATH)
    with pytest.raises(ValueError, match="compiled for another denoiser"):
        compiled(network(), range(2))
    with pytest.raises(ValueError, match="on_steps has no meaning in a traced function"):
        jax.jit(lambda i: sampler.run(denoise, SHAPES, indices=i, on_steps=print))(jnp.arange(2))


@pytest.mark.parametrize(("num_steps", "chunk"), [(50, 5), (1000, 100), (47, 1), (3, 1), (1, 1)])
def test_a_chunk_divides_the_steps(num_steps, chunk):
    assert chunk_of(num_steps) == chunk


def test_a_user_s_own_scan_of_steps_is_run():
    keys, sampler, denoise = sample_keys(11, jnp.arange(3)), _sampler(), network()

    @jax.jit
    def own(x_T):
        rows, noise = sampler.rows(denoise, x_T), keyed(keys)
        body = lambda carry, row: (sampler.step(denoise, carry, row, noise), None)  # noqa: E731
        return jax.lax.scan(body, sampler.init(denoise, x_T), rows)[0].x

    x = own(initial(keys, SHAPES))
    for m, want in sampler.run(denoise, SHAPES, seed=11, indices=range(3)).items():
        np.testing.assert_allclose(x[m], want, rtol=ROUNDING, atol=ROUNDING)


def _sampler():
    return Sampler(STEPPERS, SCHEDULES, PATH)


# Large enough to be found in a program's text, if it were a constant there.
WEIGHTS = jnp.linspace(-0.1, 0.1, 24 * 24).reshape(24, 24)


def _eps(weights, x, t, cond):
    flat = jnp.concatenate([v.reshape(len(t), -1) for v in x.values()], axis=1)
    mixed = jnp.tanh(flat @ weights)
    parts = {"audio": mixed[:, :12], "video": mixed[:, 12:]}
    return {m: x[m] + parts[m].reshape(x[m].shape) for m in x}


def _ratio(weights, other, x, t, cond):
    flat = jnp.concatenate([v.reshape(len(t), -1) for v in x.values()], axis=1)
    return other * jnp.tanh(flat @ weights).sum(1)


def test_parameters_are_arguments_of_the_programs_and_shared_ones_once():
    guided = joint(
        Partial(_eps, WEIGHTS), Partial(_ratio, WEIGHTS, jnp.float32(0.1)), SCHEDULES,
        {"audio": 1.0, "video": jnp.float32(2.0)},
    )  # fmt: skip
    sampler = _sampler()
    job, inputs = sampler._job(guided, None, SHAPES, 0, range(2), None, None, 0.0, 1.0)
    assert len(inputs.arrays) == 3  # the weights, the discriminator's own and the scale of video
    begin, proceed = sampler._programs
    text = proceed.lower(job, inputs, begin(job, inputs), np.int32(0), 1).as_text()
    constants = [line for line in text.splitlines() if "stablehlo.constant" in line]
    assert constants and not any("24x24" in line for line in constants)
    (signature,) = [line for line in text.splitlines() if "@main(" in line]
    assert signature.count("24x24") == 1


def test_other_parameters_and_seeds_are_no_other_program():
    sampler, count = _sampler(), []

    def eps(weights, x, t, cond):
        count.append(1)
        return _eps(weights, x, t, cond)

    runs = [
        sampler.run(Partial(eps, WEIGHTS * k), SHAPES, seed=seed, indices=indices)
        for k, seed, indices in ((1, 0, range(2)), (2, 5, [3, 9]), (1, 0, np.arange(2)))
    ]
    first, other, again = (np.asarray(run["audio"]) for run in runs)
    assert len(count) == 1
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@dataclasses.dataclass
class _Unhashable:
    factor: float

    def __call__(self, x, t, cond):
        return {m: self.factor * v for m, v in x.items()}


def test_a_denoiser_may_be_any_callable():
    assert np.isfinite(_sampler().run(_Unhashable(0.5), SHAPES, indices=[0])["audio"]).all()


def test_three_modalities_of_other_names_under_every_guidance():
    """Music, dance and light: partial, traced and per-sample scales, text and a plan."""
    shapes = {"music": (4,), "dance": (2, 3), "light": (1, 2, 2)}
    schedules = {"music": linear(), "dance": cosine(1000), "light": linear()}
    sampler = Sampler({m: DDIM(eta=0.5) for m in shapes}, schedules, levels(schedules, 5))

    def eps(x, t, cond):
        return {m: 0.7 * v + cond[m].reshape(-1, *[1] * (v.ndim - 1)) for m, v in x.items()}

    def h(x, t, cond):
        sums = [jnp.tanh(v.reshape(len(t), -1)).sum(1) for v in x.values()]
        return sums[0] * sums[1] * sums[2]

    cond, none = ({m: jnp.full(3, k) for m in shapes} for k in (0.1, 0.0))

    def text(field):
        return classifier_free(field, {m: 2.0 for m in shapes}, none)

    def run(scales, plan=None, indices=range(3), cond=cond):
        guided = joint(eps, h, schedules, scales, plan=plan, text_guidance=text)
        return sampler.run(guided, shapes, indices=indices, cond=cond)

    plain, both = run({}), run({"music": 1.5, "dance": 1.5})
    as_light = run({"music": 1.5, "dance": 1.5, "light": 0.0})
    planned = run({"music": 1.5, "dance": 1.5}, Plan(every=2, interval=(0, 900)))
    each = run({"music": jnp.array([1.5, 0.0, 1.5]), "dance": jnp.array([1.5, 0.0, 1.5])})
    for m, shape in shapes.items():
        assert plain[m].shape == (3, *shape)
        assert np.array_equal(both[m], as_light[m])
        np.testing.assert_allclose(each[m][::2], both[m][::2], atol=1e-5)
        np.testing.assert_allclose(each[m][1], plain[m][1], atol=1e-5)
    assert np.array_equal(plain["light"], both["light"])
    assert not np.allclose(plain["music"], both["music"], atol=1e-3)
    assert not np.allclose(planned["music"], both["music"], atol=1e-3)


def test_substeps_go_back_and_forth_without_changing_the_law():
    """A step down and the noising back leave a Gaussian what it is, up to the step's own error."""
    world = Gaussian(linear(), mean=0.3, std=0.5)
    sampler = Sampler({"x": DDPM()}, {"x": linear()}, levels(linear(), 400), num_substeps=2)
    x = np.asarray(sampler.run(world.eps, {"x": (1,)}, seed=3, indices=range(10_000))["x"])
    assert x.mean() == pytest.approx(0.3, abs=0.02)
    assert x.std() == pytest.approx(0.5, rel=0.05)


def test_no_substep_is_refused():
    with pytest.raises(ValueError, match="num_substeps must be at least 1, got 0"):
        _run([0], num_substeps=0)


@pytest.mark.parametrize(
    ("steppers", "schedules", "path", "message"),
    [
        ({"a": DDIM()}, {"b": linear()}, PATH, r"steppers of \['a'\] and schedules of \['b'\]"),
        ({}, {}, PATH, "one of each"),
        ({m: DDIM() for m in "ab"}, {"a": linear(), "b": linear(200)}, PATH, "'b': 200"),
        ({"a": DDIM()}, {"a": linear(200)}, Levels(times=np.array([500])), "ends at 199"),
    ],
)
def test_parts_that_do_not_fit_are_refused(steppers, schedules, path, message):
    with pytest.raises(ValueError, match=message):
        Sampler(steppers, schedules, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"indices \[b\] say which samples"),
        ({"indices": [0.5]}, "must be whole numbers"),
        ({"indices": 3}, "must be whole numbers"),
        ({"indices": [0], "shapes": {}}, r"shapes of \[\], but steppers"),
        ({"indices": [0], "shapes": {"smell": (2,)}}, r"shapes of \['smell'\]"),
    ],
)
def test_calls_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _sampler().run(network(), **({"shapes": SHAPES} | options))

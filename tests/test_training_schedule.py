# SPDX-License-Identifier: Apache-2.0
"""Schedules of training scale with its length, and shipped configs keep their numbers of steps."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mmdisco_jax.discriminator.objective import ObjectiveSpec, objective
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.sections import Training
from mmdisco_jax.system import System
from mmdisco_jax.tasks.train import free_keys, optimizer, schedule_note

# num_steps, warm-up, start of the denoising loss, growth of the noise levels: what the shipped
# weights were trained with.
SHIPPED = {
    "bounce:video": (3500, 100),
    "bounce:audio": (2500, 100),
    "bounce:discriminator": (1000, 100, 300, 300),
    "bounce_ablations:training": (1000, 100, 300, 300),
    "bounce_mm_diffusion:joint": (2800, 50),
    "bounce_mm_diffusion:discriminator": (600, 100, 200, 300),
    "bounce_super_resolution": (1000, 50),
    "folder:train=discriminator": (1000, 100, 300, 300),
    "folder_mm_diffusion:train=discriminator": (600, 100, 200, 300),
    "landscape_mm_diffusion": (100_000, 1000),
    "aist_mm_diffusion:train=discriminator": (1000, 100, 300, 300),
    "super_resolution": (100_000, 1000),
    "toy": (1000, 20),
    "vggsound_audioldm_animatediff": (20_000, 500, 2000, 0),
}


def experiment(text: str, **overrides) -> Experiment:
    keys = {f"train.{name.replace('__', '.')}": value for name, value in overrides.items()}
    return Experiment.from_config(load_config(text, keys))


def steps(train: Training) -> tuple[float, ...]:
    spec = train.objective
    return train.num_steps, train.warmup_steps, spec.denoising_from, spec.level_warmup_steps


@pytest.mark.parametrize("text", SHIPPED)
def test_shipped_configs_keep_their_numbers_of_steps(text):
    made = experiment(text)
    wanted = SHIPPED[text]
    assert steps(made.train)[: len(wanted)] == wanted
    assert all(isinstance(n, int) for n in steps(made.train))
    recorded = made.resolved["train"]  # as checkpoints and config.json hold it
    assert recorded["warmup_steps"] == made.train.warmup_steps
    assert recorded["objective"]["denoising_from"] == made.train.objective.denoising_from


@pytest.mark.parametrize("num_steps", [1, 2, 5, 60, 99, 300])
def test_a_short_training_has_all_its_parts(num_steps):
    made = experiment("bounce:discriminator", num_steps=num_steps)
    _, warmup, denoising, levels = steps(made.train)
    assert warmup < num_steps and denoising < num_steps and levels < num_steps
    if num_steps >= 60:
        assert (warmup, denoising, levels) == (
            num_steps // 10 + (num_steps % 10 >= 5),
            *(2 * (round(0.3 * num_steps),)),
        )
    assert optimizer(System(made))
    note = schedule_note(made.train)
    assert f"{num_steps} steps" in note and f"denoising loss from step {denoising}" in note


def test_what_is_set_in_steps_stays_in_steps():
    made = experiment("bounce:discriminator", num_steps=60, warmup_steps=7.0)
    assert steps(made.train)[:3] == (60, 7, 18)
    assert experiment("bounce:video", warmup_steps=0.0).train.warmup_steps == 0
    assert experiment("bounce:video", warmup_steps=1.0).train.warmup_steps == 1


@pytest.mark.parametrize("value", [-1.0, -0.1, 1.5, 100.25])
def test_odd_numbers_of_steps_are_refused(value):
    with pytest.raises(ValueError, match=r"train\.warmup_steps is .*share of num_steps below 1"):
        experiment("bounce:video", warmup_steps=value)


def test_a_share_that_was_not_resolved_is_refused_by_the_loss():
    problem: Any = None
    with pytest.raises(ValueError, match=r"denoising_from=0\.3 is a share"):
        key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
        objective(None, {}, None, key, step, problem, ObjectiveSpec(denoising_from=0.3))


def test_the_objective_is_no_part_of_a_base_training():
    assert "train.objective" in free_keys(dict(experiment("bounce:video").resolved))
    assert "train.objective" not in free_keys(dict(experiment("bounce:discriminator").resolved))

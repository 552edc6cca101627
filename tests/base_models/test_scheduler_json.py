# SPDX-License-Identifier: Apache-2.0
"""Scheduler files of released pipelines: the tables are diffusers', and nothing is read over."""

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.base_models.pipelines import PipelineBase
from mmdisco_jax.base_models.scheduler_json import CLASSES, read_abar
from mmdisco_jax.process.schedules import scaled_linear
from tests.support.reference import diffusers

# As Stable Diffusion 1.5's, without what was added to the format later.
OLD = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
BETAS = [0.01, 0.02, 0.05, 0.3]


def _file(name: str, **settings) -> dict:
    """A scheduler's file as diffusers writes it today, without limits of the signal."""
    made = getattr(diffusers, name)
    known = inspect.signature(made.__init__).parameters
    off = {k: False for k in ("clip_sample", "thresholding") if k in known}
    scheduler = made(**{k: v for k, v in (off | settings).items() if k in known})
    return json.loads(scheduler.to_json_string()), scheduler.alphas_cumprod.double().numpy()


@pytest.mark.parametrize("name", sorted(CLASSES - {"DPMSolverSDEScheduler"}))  # needs torchsde
def test_every_known_class_is_read_as_diffusers_reads_it(name):
    config, want = _file(name, num_train_timesteps=400, beta_start=0.001, beta_end=0.03)
    np.testing.assert_allclose(read_abar(config), want, rtol=2e-5)


@pytest.mark.parametrize("shape", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_every_table_of_betas_is_diffusers_own(shape):
    config, want = _file("DDPMScheduler", beta_schedule=shape)
    np.testing.assert_allclose(read_abar(config), want, rtol=2e-4)  # theirs is float32


def test_a_table_of_its_own_is_taken_instead_of_the_formula():
    config, want = _file("DDIMScheduler", trained_betas=BETAS, num_train_timesteps=4)
    np.testing.assert_allclose(read_abar(config), want, rtol=1e-6)
    np.testing.assert_allclose(read_abar({"trained_betas": BETAS}), np.cumprod(1 - np.array(BETAS)))


def test_old_files_are_read():
    np.testing.assert_array_equal(read_abar(OLD), scaled_linear(1000, 0.00085, 0.012).abar)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
        ({"prediction_type": "v_prediction"}, "prediction_type='v_prediction'"),
        ({"clip_sample": True}, "clip_sample=True"),
        ({"thresholding": True}, "thresholding=True"),
        ({"variance_type": "learned_range"}, "variance_type='learned_range'"),
        ({"timestep_type": "continuous"}, "timestep_type='continuous'"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas=True"),
        ({"beta_schedule": "laplace"}, "beta_schedule='laplace'; known are linear"),
        ({"beta_shift": 0.1}, "unknown key beta_shift=0.1"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "'FlowMatchEulerDiscreteScheduler'"),
        ({"_class_name": "LCMScheduler"}, "LCMScheduler.*known are DDIM"),
        ({"beta_end": None, "num_train_timesteps": None}, "lacks num_train_timesteps, beta_end"),
    ],
)
def test_what_would_change_the_model_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        read_abar(OLD | change)


def test_other_ways_of_sampling_change_nothing():
    more = {"timestep_spacing": "trailing", "use_karras_sigmas": True, "algorithm_type": "deis"}
    np.testing.assert_array_equal(read_abar(OLD | more), read_abar(OLD))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Released(PipelineBase):
    """A recipe whose files are a scheduler's alone."""

    SCHEDULE = scaled_linear(1000, 0.00085, 0.012)
    TEXT_KIND = ""

    def preset(self):
        raise NotImplementedError

    preset_format = codec_network = preset

    def root(self, *models, others=()):
        return Path(self.weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"trained_betas": list(np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)}, None),
        ({"trained_betas": BETAS}, "says {'trained_betas': 'a table of 4'}, but base model video"),
        ({"beta_end": 0.02}, "'beta_end': 0.02}, but base model video"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
        ({"trained_betas": [1.0, 0.5]}, "must fall strictly"),
    ],
)
def test_a_pipeline_says_its_file_and_the_remedy(tmp_path, change, message):
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(OLD | change))
    base = _Released(name="video", clip=None, weights=str(tmp_path))
    if message is None:
        base._check_scheduler()
        return
    with pytest.raises(ValueError, match="scheduler_config") as error:
        base._check_scheduler()
    assert message in str(error.value) and "force_schedule=True goes on" in str(error.value)

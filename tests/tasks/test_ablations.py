# SPDX-License-Identifier: Apache-2.0
"""configs/bounce_ablations.py: each variant of each factor is a sampler that can be built."""

import pytest

from configs import bounce_ablations
from mmdisco_jax.experiment import Experiment
from mmdisco_jax.system import System, load

FACTORS = ("scales", "samplers", "plans", "training", "fusion", "seeds")


@pytest.mark.parametrize("factor", FACTORS)
def test_every_variant_is_a_sampler(factor):
    system = System(Experiment.from_config(bounce_ablations.get_config(factor)))
    experiment = system.experiment
    assert set(experiment.variant_names) == set(bounce_ablations.FACTORS[factor])
    for name in experiment.variant_names:
        assert len(system.sampler(name).levels) == (20 if "dpm" in name else 50)
        assert experiment.variant(name).is_guided == ("independent" not in name)


def test_another_sampler_does_not_inherit_the_default_ones_settings():
    experiment = load("bounce_ablations:samplers").experiment
    records = experiment.variant_records
    chosen = records["guided_dpm_20"]["samplers"]
    assert chosen["video"] == {"name": "dpm_solver_pp_2m", "clip": 1.0}
    assert chosen["audio"] == {"name": "dpm_solver_pp_2m", "clip": None}
    assert records["guided_eta_0"]["samplers"]["audio"] == {
        "name": "ddim",
        "eta": 0.0,
        "clip": None,
    }
    steppers = experiment.variant("guided_eta_0").samplers
    assert {m: (s.eta, s.clip) for m, s in steppers.items()} == {  # pyright: ignore
        "audio": (0.0, None),
        "video": (0.0, 1.0),
    }


def test_an_unknown_factor_is_named():
    with pytest.raises(ValueError, match="unknown factor 'colour': choose one of scales"):
        bounce_ablations.get_config("colour")

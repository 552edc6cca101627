# SPDX-License-Identifier: Apache-2.0
"""configs/bounce_ablations.py: each variant of each factor is a sampler that can be built."""

import pytest

from configs import bounce_ablations
from mmdisco_jax import build

FACTORS = ("scales", "samplers", "plans", "training", "fusion", "seeds")


@pytest.mark.parametrize("factor", FACTORS)
def test_every_variant_is_a_sampler(factor):
    config = bounce_ablations.get_config(factor)
    for name in build.variant_names(config):
        assert build.sampler(config, name).num_steps == (20 if "dpm" in name else 50)
        assert build.is_guided(config, name) == ("independent" not in name)


def test_another_sampler_does_not_inherit_the_default_ones_settings():
    config = bounce_ablations.get_config("samplers")
    chosen = build.variant_settings(config, "guided_dpm_20").samplers
    assert chosen.video.to_dict() == {"name": "dpm_solver_pp_2m", "clip": 1.0}
    assert build.variant_settings(config, "guided_eta_0").samplers.audio.to_dict() == {
        "name": "ddim",
        "eta": 0.0,
        "clip": None,
    }


def test_an_unknown_factor_is_named():
    with pytest.raises(ValueError, match="unknown factor 'colour': choose one of scales"):
        bounce_ablations.get_config("colour")

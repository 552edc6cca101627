# SPDX-License-Identifier: Apache-2.0
"""The naming rule against the key lists of the released files, and layouts against a hand count."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.discriminator.official import PRESETS, OfficialDiscriminator
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.names import TorchTensor, torch_tensor

KEYS = Path(__file__).parents[1] / "golden" / "keys"
RELEASED = {
    "audioldm_animatediff": ("mmdisco_audioldm_animediff_vggsound", 33_261_313, 276),
    "auffusion_videocrafter2": ("mmdisco_auffusion_videocrafter2_vggsound", 38_972_161, 353),
    "mmdiffusion": ("mmdisco_mmdiffusion", 12_682_241, 164),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_names_shapes_and_counts_are_the_released_ones(preset: str):
    file, parameters, tensors = RELEASED[preset]
    module = nnx.eval_shape(lambda: OfficialDiscriminator(PRESETS[preset], rngs=param_keys(0)))
    shapes = {}
    for path, leaf in nnx.to_flat_state(nnx.split(module)[1]):
        name, axes = torch_tensor(path, leaf.ndim)
        shapes[name] = [leaf.shape[axis] for axis in axes]
    assert shapes == json.loads((KEYS / f"{file}.json").read_text())
    assert len(shapes) == tensors
    assert sum(map(math.prod, shapes.values())) == parameters


@pytest.mark.parametrize(
    ("path", "shape", "name", "torch_shape"),
    [
        (("fc", "kernel"), (3, 5), "fc.weight", (5, 3)),
        (("net", 0, "kernel"), (7, 3, 5), "net.0.weight", (5, 3, 7)),
        (("c", "kernel"), (7, 9, 3, 5), "c.weight", (5, 3, 7, 9)),
        (("c", "kernel"), (7, 9, 11, 3, 5), "c.weight", (5, 3, 7, 9, 11)),
        (("norm", "scale"), (4,), "norm.weight", (4,)),
        (("emb", "embedding"), (8, 2), "emb.weight", (8, 2)),
        (("fm", "cls_emb"), (1, 1, 6), "fm.cls_emb", (1, 1, 6)),
    ],
)
def test_rule(path: tuple, shape: tuple, name: str, torch_shape: tuple):
    tensor = torch_tensor(path, len(shape))
    there = np.zeros(shape).transpose(tensor.axes)
    assert (tensor.name, there.shape) == (name, torch_shape)
    assert there.transpose(tensor.inverse).shape == shape


def test_override_wins():
    transposed = TorchTensor("up.weight", (1, 2, 0))
    assert torch_tensor(("up", "kernel"), 3, {"up.kernel": transposed}) == transposed
    plain = torch_tensor(("up", "kernel"), 3, {"up.kernel": ("up.weight", (1, 2, 0))})
    assert plain.inverse == transposed.inverse == (2, 0, 1)

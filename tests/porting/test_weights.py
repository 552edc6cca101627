# SPDX-License-Identifier: Apache-2.0
"""Weight files: exact, strict in both directions, and telling where they come from."""

import jax
import numpy as np
import pytest
from flax import nnx

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.weights import load_weights, read_metadata, save_weights


class Net(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(3, width, rngs=rngs), nnx.Linear(width, 2, rngs=rngs)])


def params(width: int = 4) -> nnx.State:
    return nnx.split(Net(width, rngs=param_keys(0)))[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 2**-11)])
def test_a_round_trip_keeps_names_values_and_metadata(tmp_path, dtype, tolerance):
    path = tmp_path / "weights.safetensors"
    save_weights(path, params(), {"seed": "0", "config": "{}"}, dtype=dtype)
    wanted = jax.eval_shape(params)
    loaded = load_weights(path, wanted)
    assert jax.tree.structure(loaded) == jax.tree.structure(params())
    for a, b in zip(jax.tree.leaves(params()), jax.tree.leaves(loaded), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=0)
    assert read_metadata(path) == {"seed": "0", "config": "{}"}
    assert path.stat().st_size < 1000 and list(tmp_path.iterdir()) == [path]


def test_names_and_shapes_must_match_both_ways(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, params(), {})
    with pytest.raises(ValueError, match=r"wrong shape: .*layers.0.kernel is \(3, 4\).*\(3, 5\)"):
        load_weights(path, params(5))
    save_weights(path, {"layers": {0: {"bias": np.zeros(4)}}, "more": np.zeros(1)}, {})
    with pytest.raises(ValueError, match=r"missing: layers.0.kernel, .*; unexpected: more"):
        load_weights(path, params())


def test_what_cannot_be_stored_or_read_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ValueError, match="beyond the range of float16"):
        save_weights(path, {"a": np.full(2, 1e5, np.float32)}, {}, dtype="float16")
    with pytest.raises(ValueError, match="'bfloat16'"):
        save_weights(path, params(), {}, dtype="bfloat16")
    with pytest.raises(ValueError, match="change the suffix"):
        save_weights(tmp_path / "weights.npz", params(), {})
    with pytest.raises(FileNotFoundError, match="no weight file"):
        load_weights(path, params())
    save_weights(path, params(), {})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_weights(path, params())

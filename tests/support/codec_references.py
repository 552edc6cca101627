# SPDX-License-Identifier: Apache-2.0
"""Reference modules (diffusers, transformers) with random weights, and what a port must share."""

import math
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmdisco_jax.porting.names import Overrides, torch_tensor


def randomised(module: Any, seed: int = 0) -> Any:
    """The PyTorch module in evaluation, with random numbers in all parameters and buffers.

    Its own start has biases 0 and norms 1, which many mistakes leave as they are. Whatever must be
    positive is about 1; other vectors are small.
    """
    torch = __import__("torch")
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            normal = rng.standard_normal(tuple(value.shape)).astype(np.float32)
            if value.ndim > 1:
                normal /= math.sqrt(math.prod(value.shape[1:]))
            else:
                normal = 0.1 * normal + (not name.endswith(("bias", "mean")))
            value.copy_(torch.tensor(normal))
    return module.eval()


def tensors(module: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def meta_shapes(make: Any) -> dict[str, list[int]]:
    """Name -> shape of all that the module's files hold, without memory for it."""
    with __import__("torch").device("meta"):
        return {name: list(value.shape) for name, value in make().state_dict().items()}


def port_shapes(abstract: Any, overrides: Overrides | None = None) -> dict[str, list[int]]:
    """The same of a port's parameters, by the rule that loads and writes files."""
    shapes = {}
    for path, leaf in nnx.to_flat_state(abstract):
        name, axes = torch_tensor(path, leaf.ndim, overrides)
        shapes[name] = [leaf.shape[axis] for axis in axes]
    assert len(shapes) == len(jax.tree.leaves(abstract))
    return shapes


def count(shapes: dict[str, list[int]]) -> int:
    return sum(map(math.prod, shapes.values()))

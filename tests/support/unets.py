# SPDX-License-Identifier: Apache-2.0
"""Diffusers' U-Nets against diffusers itself: random weights, prediction and input gradient."""

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.load import load_module
from mmdisco_jax.porting.names import torch_tensor
from tests.golden.checker import relative_error


class Errors(NamedTuple):
    """Relative errors of a port: of the prediction, and of its gradient by the input."""

    forward: float
    gradient: float


def normal(name: str, *shape: int) -> np.ndarray:
    """The standard normal numbers of that name."""
    seed = zlib.crc32(name.encode())
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def randomise(network: Any) -> dict[str, np.ndarray]:
    """Gives a PyTorch module random parameters, and returns its state dict.

    Buffers keep their values: those are formulas.
    """
    import torch

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            value = normal(name, *parameter.shape)
            if parameter.ndim > 1:
                value /= math.sqrt(np.prod(parameter.shape[1:]))
            else:
                value = 0.1 * value + (0 if name.endswith("bias") else 1)
            parameter.copy_(torch.tensor(value))
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def official(network: Any, x: np.ndarray, t: np.ndarray, context: Any, labels: Any) -> tuple:
    """Diffusers' prediction for channel-last x, and the gradient of its product with `probe`."""
    import torch

    last = x.ndim - 1
    given = torch.tensor(np.moveaxis(x, last, 1), requires_grad=True)
    if context is not None and x.ndim == 5:
        context = np.repeat(context, x.shape[1], axis=0)
    options = {"class_labels": torch.tensor(labels)} if labels is not None else {}
    seen = None if context is None else torch.tensor(context)
    out = network(given, torch.tensor(t), encoder_hidden_states=seen, **options).sample
    weights = np.moveaxis(probe(np.moveaxis(out.detach().numpy(), 1, last).shape), last, 1)
    (gradient,) = torch.autograd.grad((out * torch.tensor(weights)).sum(), given)
    return tuple(np.moveaxis(a.detach().numpy(), 1, last) for a in (out, gradient))


def probe(shape: tuple[int, ...]) -> np.ndarray:
    """Weights of the prediction's elements, whose weighted sum is derived."""
    return normal("probe", *shape)


def parity(
    network: Any, make: Callable[[], Any], tensors: dict[str, np.ndarray], *inputs: Any
) -> Errors:
    """Errors of the module that `make` builds, loaded strictly with `tensors`.

    inputs: x channel-last, t, context or None, class labels or None.
    """
    wanted, gradient = official(network, *inputs)
    graphdef, params = nnx.split(load_module(make, tensors))
    weights = probe(wanted.shape)

    @jax.jit
    def run(params, x, *others):
        def product(x):
            out = nnx.merge(graphdef, params)(x, *others)
            return (out * weights).sum(), out

        return jax.grad(product, has_aux=True)(x)

    got_gradient, got = run(params, *(None if i is None else jnp.asarray(i) for i in inputs))
    return Errors(relative_error(got, wanted), relative_error(got_gradient, gradient))


def with_gradient(model: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(x, ...) -> the prediction, and the gradient of its sum of squares by x; one program."""

    def energy(x: jax.Array, *inputs: Any):
        out = model(x, *inputs)
        return jnp.square(out).sum(), out

    def run(x: jax.Array, *inputs: Any):
        gradient, out = jax.grad(energy, has_aux=True)(x, *inputs)
        return out, gradient

    return jax.jit(run)


def finite(*arrays: jax.Array) -> bool:
    return all(bool(jnp.isfinite(array).all()) for array in arrays)


def names(make: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """Official name -> PyTorch shape of all that a port's state holds."""
    return {name: shape for name, shape, _ in _leaves(make)}


def num_parameters(make: Callable[[], Any]) -> int:
    """Elements of a port's parameters, without tables that only stand in its checkpoints."""
    return sum(math.prod(shape) for _, shape, trained in _leaves(make) if trained)


def _leaves(make: Callable[[], Any]) -> list[tuple[str, tuple[int, ...], bool]]:
    leaves = []
    for path, leaf in nnx.to_flat_state(nnx.split(nnx.eval_shape(make))[1]):
        name, axes = torch_tensor(path, leaf.ndim)
        shape = tuple(leaf.shape[axis] for axis in axes)
        leaves.append((name, shape, isinstance(leaf, nnx.Param)))
    return leaves


def rngs() -> nnx.Rngs:
    return param_keys(0)

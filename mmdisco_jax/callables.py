# SPDX-License-Identifier: Apache-2.0
"""Callable pytrees: functions whose arrays are arguments of compiled programs.

A denoiser is either a plain function, which is static for `jax.jit` and whose arrays become
constants of the program, or a callable registered pytree, whose array leaves can be arguments:
`jax.tree_util.Partial(function, params)`, a registered dataclass with `__call__`, or what the
guidance functions return. A compiled program must not hold networks' parameters as constants: they
would be stored twice, and folded at compile time.
"""

import dataclasses
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Static:
    """Wrap a function, number or setting as a pytree without leaves.

    Two are equal if their values have one type and are equal; values without a hash are compared
    by identity.
    """

    value: Any

    def _key(self) -> Any:
        try:
            hash(self.value)
        except TypeError:
            return id(self.value)
        return type(self.value), self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def wrap_static(tree: Any) -> Any:
    """Wrap all leaves but arrays in `Static`, so that only arrays are leaves.

    Arrays are those of JAX (tracers and `jax.ShapeDtypeStruct` too) and NumPy's, not its scalars.
    """
    return jax.tree.map(lambda leaf: leaf if _is_array(leaf) else Static(leaf), tree)


def unwrap_static(tree: Any) -> Any:
    """Undo `wrap_static`."""
    return jax.tree.map(
        lambda leaf: leaf.value if isinstance(leaf, Static) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, Static),
    )


@dataclasses.dataclass(frozen=True)
class Structure:
    """Hashable rest of a tree whose distinct arrays were taken out by `split`."""

    treedef: Any
    places: tuple[int, ...]

    def build(self, arrays: tuple[Any, ...]) -> Any:
        """The tree with these arrays in the places of those that were taken out."""
        leaves = [arrays[place] for place in self.places]
        return unwrap_static(jax.tree.unflatten(self.treedef, leaves))


def split(tree: Any) -> tuple[tuple[Any, ...], Structure]:
    """Take the distinct arrays out of a tree of arrays, functions, numbers and settings.

    An array that occurs several times, as the same object, is taken once: a denoiser and a
    discriminator that share a model's parameters then share arguments of the compiled program, and
    XLA can merge what both compute from them.
    """
    leaves, treedef = jax.tree.flatten(wrap_static(tree))
    numbers: dict[int, int] = {}
    places = tuple(numbers.setdefault(id(leaf), len(numbers)) for leaf in leaves)
    distinct = {id(leaf): leaf for leaf in leaves}
    return tuple(distinct.values()), Structure(treedef, places)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)

# SPDX-License-Identifier: Apache-2.0
"""Sharding of arrays over a mesh of devices, by rules on parameter names, and several processes.

The mesh has two axes. A batch is cut over both; parameters are cut over `fsdp` and repeated over
`data`. With `fsdp` of 1 that is plain data parallelism, and on one device it is nothing at all: the
same program runs on a laptop and on a pod.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)

# What a matching rule yields: a spec, or a function of the leaf's shape and the mesh.
AnyMesh: TypeAlias = Mesh | AbstractMesh
Placement: TypeAlias = PartitionSpec | Callable[[tuple[int, ...], AnyMesh], PartitionSpec]
Rules = Sequence[tuple[str, Placement]]

_MIN_SHARDED_ELEMENTS = 2**14  # gathering smaller arrays costs more than keeping them whole


def make_mesh(shape: Mapping[str, int], *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes `data` and `fsdp`, by default over all devices of all processes.

    Args:
      shape: the size of each axis; one of them may be -1, "what is left".

    Raises:
      ValueError: other axes, sizes below 1, or sizes that do not multiply to the device count.
    """
    count = len(devices or jax.devices())
    if set(shape) != set(AXES):
        raise ValueError(f"the mesh has axes {sorted(shape)}, but must have {list(AXES)}.")
    sizes = [shape[axis] for axis in AXES]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"mesh sizes must be >= 1, one of them may be -1; got {dict(shape)}.")
    given = math.prod(size for size in sizes if size != -1)
    if count % given or (-1 not in sizes and given != count):
        raise ValueError(
            f"the mesh {dict(shape)} does not fit {count} device(s): the sizes must multiply to "
            f"{count}. Set one of them to -1 to use what is left."
        )
    sizes = [count // given if size == -1 else size for size in sizes]
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def largest_dimension(shape: tuple[int, ...], mesh: AnyMesh) -> PartitionSpec:
    """Cuts the largest dimension that `fsdp` divides; small or indivisible arrays stay whole."""
    size = mesh.shape["fsdp"]
    able = [i for i, length in enumerate(shape) if length % size == 0 and length >= size]
    if size == 1 or not able or math.prod(shape) < _MIN_SHARDED_ELEMENTS:
        return PartitionSpec()
    chosen = max(able, key=lambda i: shape[i])
    return PartitionSpec(*[None] * chosen, "fsdp")


DEFAULT_RULES: Rules = ((r".*", largest_dimension),)


def tree_shardings(tree: Any, mesh: AnyMesh, rules: Rules = DEFAULT_RULES) -> Any:
    """A tree of NamedSharding like `tree`, whose leaves need a `shape`.

    The first rule whose pattern is found in a leaf's dotted name (`re.search`) places it, so a rule
    for a parameter also places its average and its optimizer moments, whose names contain it.

    Raises:
      ValueError: a leaf that no rule matches.
    """

    def choose(path: Any, leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        for pattern, placement in rules:
            if re.search(pattern, name):
                is_spec = isinstance(placement, PartitionSpec)
                return NamedSharding(mesh, placement if is_spec else placement(leaf.shape, mesh))
        raise ValueError(
            f"no sharding rule matches {name!r}; add one, or end the rules with ('.*', ...)."
        )

    return jax.tree_util.tree_map_with_path(choose, tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Host arrays, each this process's rows of the batch, as global arrays cut over all devices.

    Raises:
      ValueError: rows that this process's devices cannot share equally.
    """
    sharding = NamedSharding(mesh, BATCH)
    devices = len(mesh.local_devices)
    rows = {len(leaf) for leaf in jax.tree.leaves(batch)}
    if any(count % devices for count in rows):
        raise ValueError(
            f"a batch of {sorted(rows)} rows per process cannot be shared by {devices} devices: "
            "make batch_size a multiple of the number of devices."
        )
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """A tree of `jax.ShapeDtypeStruct` in these shardings: what is to be made, and where."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(one, abstract, shardings)


def place(tree: Any, shardings: Any) -> Any:
    """Arrays that every process holds whole, as global arrays in these shardings.

    What already is in its sharding stays.
    """

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.committed and leaf.sharding == sharding:
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)


def leaf_name(path: Sequence[Any]) -> str:
    """The dotted name of a leaf, as "params.blocks.0.kernel"; no `.value` of an NNX variable."""
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(tuple(path), simple=True, separator=".")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Dotted name -> leaf.

    Raises:
      ValueError: two leaves of one name.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = leaf_name(path)
        if name in found:
            raise ValueError(f"two leaves are called {name!r}; dotted names must be unique.")
        found[name] = leaf
    return found


def from_named_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """A tree built like `tree` from the leaves of these names: the inverse of `named_leaves`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[leaf_name(path)], tree)


def initialize_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of one training; nothing to do for a single process.

    Call it before anything else touches JAX. On CPU the processes talk through gloo.

    Args:
      coordinator: "host:port" of process 0; or the variable JAX_COORDINATOR_ADDRESS.
      num_processes: how many there are; or JAX_NUM_PROCESSES.
      process_id: this one, in 0..num_processes-1; or JAX_PROCESS_ID.

    Raises:
      ValueError: some but not all of the three are given, or they are out of range.
    """
    given = {
        "JAX_COORDINATOR_ADDRESS": coordinator,
        "JAX_NUM_PROCESSES": num_processes,
        "JAX_PROCESS_ID": process_id,
    }
    known = {k: os.environ.get(k) if v is None else str(v) for k, v in given.items()}
    missing = [name for name, value in known.items() if value is None]
    if len(missing) == len(known) or known["JAX_NUM_PROCESSES"] == "1":
        return
    if missing:
        raise ValueError(
            f"a training over several processes needs all of {list(known)}; missing: {missing}. "
            "Set these variables, or unset all for a single process."
        )
    address, *numbers = [str(value) for value in known.values()]
    if not all(number.isdigit() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        raise ValueError(
            f"JAX_PROCESS_ID must be in 0..JAX_NUM_PROCESSES-1, got {numbers[1]!r} of "
            f"{numbers[0]!r} processes."
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, int(numbers[0]), int(numbers[1]))

# SPDX-License-Identifier: Apache-2.0
"""Joins the processes of one run: on TPU pods, GKE, Kubernetes, SLURM, MPI, or by JAX_* variables.

JAX finds most clusters by itself when `jax.distributed.initialize()` is called. But it waits five
minutes for processes that nobody has started, and it fails where there is no cluster. So this
module looks first whether more than one process was started.
"""

import importlib.util
import os
import sys
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm

from mmdisco_jax.parallel import initialize_distributed

MODES = ("auto", "off", "env")
ADDRESS = "JAX_COORDINATOR_ADDRESS"
_VARIABLES = (ADDRESS, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# What JAX looks for in a SLURM step; an `salloc` shell or a batch script lacks some of them.
_SLURM = tuple(
    f"SLURM_{name}" for name in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
)
_REMEDY = (
    f"Set {', '.join(_VARIABLES)} in every process, or run each process on its own with "
    "--distributed=off."
)


class Cluster(NamedTuple):
    """A cluster that JAX can join.

    kind: its name, for messages. count: its processes, None where only JAX can ask. arguments: of
    `jax.distributed.initialize`, those that JAX does not find by itself.
    """

    kind: str
    count: int | None
    arguments: dict[str, Any]


def join(mode: str = "auto") -> None:
    """Joins the processes of one run; nothing to do for a single process.

    Call it before anything else touches JAX.

    Args:
      mode: "auto" joins a cluster of more than one process, or the processes that the variables
        JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name. "env" looks at these
        variables only. "off" never joins.

    Raises:
      ValueError: an unknown mode, some of the variables without the others, or a cluster that
        cannot be joined.
    """
    if mode not in MODES:
        raise ValueError(f"--distributed is {mode!r}: choose one of {', '.join(MODES)}.")
    if mode == "off":
        return
    given = [name for name in _VARIABLES if name in os.environ]
    found = None
    if mode == "auto" and given in ([], [ADDRESS]):
        found = find_cluster(os.environ)
    if found is None:
        initialize_distributed()
        return
    count = "the" if found.count is None else found.count
    print(
        f"joining {count} processes of this run ({found.kind}); --distributed=off runs each on "
        "its own",
        file=sys.stderr,
    )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**found.arguments)
    except Exception as error:  # each kind of cluster has exceptions of its own
        raise ValueError(
            f"this process was started as one of several ({found.kind}), but could not join them: "
            f"{error}. {_REMEDY}"
        ) from error


def find_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster of more than one process that started this one; None without one.

    It asks nobody, so that it takes no time where there is no cluster.

    Raises:
      ValueError: several processes of an MPI that JAX cannot join as it is.
    """
    for look in (_open_mpi, _other_mpi, _slurm, _tpu, _kubernetes):
        found = look(environment)
        if found and found.count != 1:
            return found
    return None


def _open_mpi(environment: Mapping[str, str]) -> Cluster | None:
    size, rank = (environment.get(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK"))
    if size is None or rank is None:
        return None
    numbers: dict[str, Any] = {"num_processes": int(size), "process_id": int(rank)}
    if "JAX_LOCAL_DEVICE_IDS" not in environment:  # as JAX does: a GPU for each process of a host
        numbers["local_device_ids"] = [int(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", rank))]
    found = Cluster("Open MPI", int(size), numbers)
    # JAX reads the address of `mpirun` up to Open MPI 4. Open MPI 5 tells none.
    if "OMPI_MCA_orte_hnp_uri" in environment or ADDRESS in environment or int(size) == 1:
        return found
    if environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") != size:
        raise ValueError(
            "this Open MPI does not tell its processes the address of the first one, and they run "
            f"on several hosts: set {ADDRESS}=HOST:PORT, with the host of rank 0 and any free port."
        )
    job = environment.get("PMIX_NAMESPACE", "")
    port = environment.get("JAX_COORDINATOR_PORT") or 49152 + zlib.crc32(job.encode()) % 16000
    numbers["coordinator_address"] = f"localhost:{port}"
    return found


def _slurm(environment: Mapping[str, str]) -> Cluster | None:
    if any(name not in environment for name in _SLURM):
        return None
    # In an interactive step SLURM_NTASKS counts the allocation's tasks, of which only one runs.
    count = int(environment.get("SLURM_STEP_NUM_TASKS", environment["SLURM_NTASKS"]))
    numbers = {"num_processes": count, "process_id": int(environment["SLURM_PROCID"])}
    return Cluster("SLURM", count, numbers)


def _other_mpi(environment: Mapping[str, str]) -> Cluster | None:
    """MPICH, Intel MPI and others, which JAX joins through mpi4py."""
    size, slurm = int(environment.get("PMI_SIZE", 1)), _slurm(environment)
    by_slurm = slurm and slurm.arguments == {
        "num_processes": size,
        "process_id": int(environment.get("PMI_RANK", -1)),
    }
    if size == 1 or by_slurm:  # srun sets these variables too
        return None
    if importlib.util.find_spec("mpi4py") is None:
        raise ValueError(
            f"this process was started as one of {size} by an MPI that JAX joins through mpi4py, "
            f"which is not installed: pip install mpi4py. {_REMEDY}"
        )
    return Cluster("MPI", size, {"cluster_detection_method": "mpi4py"})


def _tpu(environment: Mapping[str, str]) -> Cluster | None:
    platforms = jax.config.jax_platforms or "tpu"  # pyright: ignore
    if not running_in_cloud_tpu_vm or "tpu" not in platforms:
        return None
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if hosts:
        slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
        return Cluster("TPU hosts", len(hosts.split(",")) * slices, {})
    if "TPU_SKIP_MDS_QUERY" in environment:
        return None
    return Cluster("TPU VM", None, {})  # JAX asks the metadata server


def _kubernetes(environment: Mapping[str, str]) -> Cluster | None:
    """Pods of an indexed job; others have no numbers."""
    if not {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(environment):
        return None
    if importlib.util.find_spec("kubernetes") is None:
        print(
            "this is a pod of an indexed Kubernetes job, and runs on its own: to join the pods, "
            "install jax[k8s]. --distributed=off leaves out this note",
            file=sys.stderr,
        )
        return None
    return Cluster("Kubernetes", None, {})

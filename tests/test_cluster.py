# SPDX-License-Identifier: Apache-2.0
"""Processes of one run find each other on simulated clusters, and a single one waits for nobody."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from mmdisco_jax import cluster
from tests.support import training_processes as processes

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "{}",
    "SLURM_LOCALID": "{}",
}
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "{}",
    "OMPI_COMM_WORLD_LOCAL_RANK": "{}",
    "PMIX_NAMESPACE": "prterun-node-17@1",
}
OPEN_MPI = OPEN_MPI_5 | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911"}
PMI = {"PMI_SIZE": "2", "PMI_RANK": "0"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
HOSTS = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}


def numbered(environment: dict[str, str], number: int = 1) -> dict[str, str]:
    return {name: value.format(number) for name, value in environment.items()}


def found(environment: dict[str, str]) -> tuple[str, int | None] | None:
    cluster_found = cluster.find_cluster(numbered(environment))
    return cluster_found and cluster_found[:2]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM, ("SLURM", 2)),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        # An interactive shell in an allocation of 8 tasks; JAX would wait for the other seven.
        (SLURM | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, None),
        # A batch script, outside of any step.
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, None),
        (SLURM | {"PMI_SIZE": "2", "PMI_RANK": "1"}, ("SLURM", 2)),  # srun --mpi=pmi2
        (OPEN_MPI, ("Open MPI", 2)),
        (OPEN_MPI_5, ("Open MPI", 2)),
        (OPEN_MPI_5 | SLURM | {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, ("Open MPI", 2)),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        (PMI | {"PMI_SIZE": "1"}, None),
        (HOSTS, None),  # no TPU chips here
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # any pod
    ],
)
def test_a_cluster_is_what_started_more_than_one_process(environment, expected):
    assert found(environment) == expected


def platforms(monkeypatch, names: str) -> None:
    config = SimpleNamespace(jax_platforms=names)
    monkeypatch.setattr(cluster, "jax", SimpleNamespace(config=config))


def test_tpu_hosts_are_counted_where_the_tpu_is_used(monkeypatch):
    monkeypatch.setattr(cluster, "running_in_cloud_tpu_vm", True)
    platforms(monkeypatch, "cpu")
    assert found(HOSTS) is None
    platforms(monkeypatch, "tpu,cpu")
    assert found(HOSTS) == ("TPU hosts", 2)
    assert found(HOSTS | {"MEGASCALE_NUM_SLICES": "4"}) == ("TPU hosts", 8)
    assert found({"TPU_WORKER_HOSTNAMES": "localhost"}) is None  # one host needs nothing
    assert found({}) == ("TPU VM", None)
    assert found({"TPU_SKIP_MDS_QUERY": "1"}) is None


def test_what_cannot_be_joined_is_told(monkeypatch, capsys):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"one of 2 by an MPI .* pip install mpi4py.*=off"):
        found(PMI)
    several_hosts = OPEN_MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    with pytest.raises(ValueError, match="set JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        found(several_hosts)
    assert found(several_hosts | {"JAX_COORDINATOR_ADDRESS": "a:1"}) == ("Open MPI", 2)
    assert found(POD) is None and "install jax[k8s]" in capsys.readouterr().err
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: object())
    assert found(POD) == ("Kubernetes", None)
    assert found(PMI) == ("MPI", 2)


def _join(environment: dict[str, str], mode: str, told: Path) -> None:
    os.environ.update(environment)
    start = time.monotonic()
    cluster.join(mode)
    told.write_text(f"{jax.process_index()} of {jax.process_count()}")
    if jax.process_count() == 1 and time.monotonic() - start > 20:
        raise SystemExit("waited")


@pytest.mark.parametrize("environment", [SLURM, OPEN_MPI, OPEN_MPI_5])
def test_two_processes_join(environment, tmp_path):
    port = processes.free_address().rsplit(":", 1)[1]
    environment = environment | {"JAX_COORDINATOR_PORT": port}
    both = [
        processes.start(_join, numbered(environment, i), "auto", tmp_path / str(i))
        for i in range(2)
    ]
    assert [processes.finish(process) for process in both] == [0, 0]
    assert [(tmp_path / str(i)).read_text() for i in range(2)] == ["0 of 2", "1 of 2"]


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "auto"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, "auto"),
        (OPEN_MPI, "off"),
        (OPEN_MPI, "env"),
    ],
)
def test_a_process_of_its_own_waits_for_nobody(environment, mode, monkeypatch):
    for name, value in numbered(environment).items():
        monkeypatch.setenv(name, value)
    cluster.join(mode)
    assert jax.process_count() == 1


def test_variables_come_before_clusters_and_must_be_whole(monkeypatch):
    for name, value in numbered(SLURM).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    for mode in ("auto", "env"):
        with pytest.raises(ValueError, match="missing: "):
            cluster.join(mode)
    cluster.join("off")
    with pytest.raises(ValueError, match="choose one of auto, off, env"):
        cluster.join("on")

# SPDX-License-Identifier: Apache-2.0
"""Compiles each toy program once: resumed runs and other processes find it on disk."""

import pytest

from tests.support import training_processes as processes


@pytest.fixture(scope="package", autouse=True)
def compilation_cache(tmp_path_factory):
    with processes.compilation_cache(tmp_path_factory.mktemp("compiled")):
        yield

# SPDX-License-Identifier: Apache-2.0
"""Tests of `mmdisco_jax.samplers`."""

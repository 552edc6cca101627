# SPDX-License-Identifier: Apache-2.0
"""Datasets: one folder and one TFDS builder each."""

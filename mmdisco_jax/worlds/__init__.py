# SPDX-License-Identifier: Apache-2.0
"""Synthetic worlds with known ground truth, for training, tests and measurements."""

# SPDX-License-Identifier: Apache-2.0
"""Conversion between PyTorch weights and NNX parameters; the only reader of foreign checkpoints."""

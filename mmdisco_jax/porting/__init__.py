# SPDX-License-Identifier: Apache-2.0
"""PyTorch weights to NNX parameters and back; the only place that reads foreign checkpoints."""

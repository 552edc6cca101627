# SPDX-License-Identifier: Apache-2.0
"""Layers shared by the networks. Channel-last, Flax NNX, no state besides parameters."""

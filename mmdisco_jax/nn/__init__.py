# SPDX-License-Identifier: Apache-2.0
"""Layers shared by the networks: channel-last, Flax NNX, without state besides parameters."""

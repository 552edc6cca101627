# SPDX-License-Identifier: Apache-2.0
"""AIST++ dataset: dance with music, as MM-Diffusion uses it."""

# SPDX-License-Identifier: Apache-2.0
"""Landscape dataset: nature scenes with their sound, as MM-Diffusion uses them."""

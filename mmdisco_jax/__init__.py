# SPDX-License-Identifier: Apache-2.0
"""Joint audio-video generation guided by a discriminator, in JAX (MMDisCo, ICLR 2025)."""

__version__ = "0.1.0"

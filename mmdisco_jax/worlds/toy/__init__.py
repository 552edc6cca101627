# SPDX-License-Identifier: Apache-2.0
"""Two-dimensional Gaussian mixtures with closed-form scores and log-ratios (MMDisCo, Figs 2, 4)."""

# SPDX-License-Identifier: Apache-2.0
"""Discriminators of real against independently generated pairs; they know no sampler."""

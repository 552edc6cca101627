# SPDX-License-Identifier: Apache-2.0
"""Bounce dataset: a simulated ball that rings at each impact, with the truth of every clip."""

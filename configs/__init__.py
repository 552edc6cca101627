# SPDX-License-Identifier: Apache-2.0
"""Experiments, one file each: what was decided, the commands, and what was measured."""

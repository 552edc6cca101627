# SPDX-License-Identifier: Apache-2.0
"""Tests of the training: resumption, damage, loops, reports."""

# SPDX-License-Identifier: Apache-2.0
"""Training: pure train step, loop, checkpoints, metrics and weight files."""

# SPDX-License-Identifier: Apache-2.0
"""Guidance: from noise predictions to better noise predictions. Strength 0 is the identity."""

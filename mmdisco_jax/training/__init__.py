# SPDX-License-Identifier: Apache-2.0
"""Training: a pure step over (state, frozen, batch, key), and the loop around it."""

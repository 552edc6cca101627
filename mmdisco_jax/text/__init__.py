# SPDX-License-Identifier: Apache-2.0
"""Prompts to what the base models are conditioned on: tokens, then a frozen text encoder."""

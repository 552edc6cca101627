# SPDX-License-Identifier: Apache-2.0
"""Bouncing ball with impact sounds: simulator, detectors and agreement measures."""

# SPDX-License-Identifier: Apache-2.0
"""Fixtures: real bounce clips, and what the detectors see in them."""

from tests.support.bounce_clips import clips, seen

__all__ = ["clips", "seen"]

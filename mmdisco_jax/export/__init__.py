# SPDX-License-Identifier: Apache-2.0
"""Samples on disk: integers, MP4 with sound, WAV, figures and the gallery page."""

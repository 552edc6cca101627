# SPDX-License-Identifier: Apache-2.0
"""Cutting of media files into clips: inspection, policies, decoding and dataset building."""

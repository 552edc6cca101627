# SPDX-License-Identifier: Apache-2.0
"""Folder dataset: clips cut from your own media files."""

# SPDX-License-Identifier: Apache-2.0
"""Long videos dataset: consecutive clips of long videos, split by video."""

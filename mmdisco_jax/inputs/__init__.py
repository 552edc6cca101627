# SPDX-License-Identifier: Apache-2.0
"""Records to training batches: sources, windows, transforms, caches and the grain pipeline."""

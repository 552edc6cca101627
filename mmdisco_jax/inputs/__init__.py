# SPDX-License-Identifier: Apache-2.0
"""Loading of records as training batches: sources, windows, transforms, caches and pipeline."""

# SPDX-License-Identifier: Apache-2.0
"""The bounce dataset: a falling ball whose every impact rings, so that alignment has a truth."""

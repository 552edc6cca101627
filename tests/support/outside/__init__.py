# SPDX-License-Identifier: Apache-2.0
"""Components of somebody else's package: one file each, reached as "package.module:attribute"."""

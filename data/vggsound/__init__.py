# SPDX-License-Identifier: Apache-2.0
"""VGGSound dataset: YouTube clips of 309 kinds of sound with a visible source."""

# SPDX-License-Identifier: Apache-2.0
"""`vggsound`: YouTube clips of 309 kinds of sound whose source is seen."""

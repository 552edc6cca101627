# SPDX-License-Identifier: Apache-2.0
"""Media files to clips: inspection, policies for problem files, decoding and cutting."""

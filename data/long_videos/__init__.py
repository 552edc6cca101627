# SPDX-License-Identifier: Apache-2.0
"""`long_videos`: consecutive pieces of long videos, split by video."""

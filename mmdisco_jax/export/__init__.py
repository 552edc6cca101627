# SPDX-License-Identifier: Apache-2.0
"""Export of samples: npz shards, MP4 with sound, WAV, still pictures and the gallery page."""

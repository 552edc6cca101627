# SPDX-License-Identifier: Apache-2.0
"""`folder`: windows cut from the media files of a folder."""

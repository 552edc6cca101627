# SPDX-License-Identifier: Apache-2.0
"""One file per mode of launch.py."""

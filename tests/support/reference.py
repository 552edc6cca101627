# SPDX-License-Identifier: Apache-2.0
"""Diffusers, whose lazy exports no type checker sees."""

import importlib
from typing import Any

diffusers: Any = importlib.import_module("diffusers")

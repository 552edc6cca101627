# SPDX-License-Identifier: Apache-2.0
"""One module per kind of golden file; `tests.golden.checker.KINDS` is the table."""

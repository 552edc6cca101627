# SPDX-License-Identifier: Apache-2.0
"""What the datasets are: one folder and one TFDS builder each."""

# SPDX-License-Identifier: Apache-2.0
"""Golden tensors of the official PyTorch code, and the checker that compares with them."""

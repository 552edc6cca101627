# SPDX-License-Identifier: Apache-2.0
"""`landscape`: nature scenes with their sound, as MM-Diffusion uses them."""

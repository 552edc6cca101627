# SPDX-License-Identifier: Apache-2.0
"""`aist_plus_plus`: dance with music, as MM-Diffusion uses it."""

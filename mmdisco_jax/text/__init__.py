# SPDX-License-Identifier: Apache-2.0
"""Text conditioning: prompts, tokenizers, and the frozen CLIP and CLAP text encoders."""

# SPDX-License-Identifier: Apache-2.0
"""One door: python launch.py MODE --config=NAME[:arguments] --workdir=DIR [--config.a.b=v]."""

from mmdisco_jax.cli import main

if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""One door: python launch.py MODE --config=configs/x.py[:arg] --workdir=DIR [--config.a.b=v]."""

from mmdisco_jax.commands.cli import main

if __name__ == "__main__":
    main()

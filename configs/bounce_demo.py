# SPDX-License-Identifier: Apache-2.0
"""What `make demo` runs: the shipped bounce weights, 32 seeds of independent and guided clips.

    python launch.py prepare  --config=configs/bounce_demo.py --workdir=runs/demo
    python launch.py sample   --config=configs/bounce_demo.py --workdir=runs/demo
    python launch.py evaluate --config=configs/bounce_demo.py --workdir=runs/demo

About two minutes on 2 cores after installation. Then open runs/demo/index.html.
"""

from typing import Any

import ml_collections

from configs import bounce


def get_config() -> ml_collections.ConfigDict:
    config: Any = bounce.get_config()
    config.data.dir = "runs/demo/data"
    config.data.options.num_train = 1
    config.data.options.num_test = 256
    config.evaluate.levels = ()  # a table for those who train; it would take a minute here
    config.sample.num_samples = 32
    config.sample.batch_size = 16
    return config

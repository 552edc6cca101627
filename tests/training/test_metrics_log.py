# SPDX-License-Identifier: Apache-2.0
"""The metrics file over interruptions."""

import json
from typing import Any

import numpy as np
import pytest

from mmdisco_jax.training.metrics_log import MetricsLog, loss_trace, read_metrics


def window(*losses: float, **more: float) -> list[dict[str, Any]]:
    return [
        {"loss": np.float32(loss)} | {k: np.float32(v) for k, v in more.items()} for loss in losses
    ]


def test_a_resumed_log_drops_what_lies_beyond_and_counts_time_on(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(2, window(5, 4))
        log.write(4, window(3, 2))
    rows = read_metrics(tmp_path)
    rows[0]["seconds"] = 100.0
    torn = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "lo'
    (tmp_path / "metrics.jsonl").write_text(torn)
    with MetricsLog(tmp_path, 2) as log:
        log.write(4, window(7, 6))
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [2, 4]
    assert loss_trace(rows) == [5, 4, 7, 6]
    assert rows[1]["seconds"] >= 100


def test_means_skip_the_steps_that_lack_a_metric(tmp_path):
    steps = window(1, **{"error/0": np.nan, "error/1": np.nan}) + window(
        2, **{"error/0": 8, "error/1": np.nan}
    )
    with MetricsLog(tmp_path, 0) as log:
        log.write(2, steps)
    (row,) = read_metrics(tmp_path)
    assert row["error/0"] == 8 and "error/1" not in row and row["loss"] == 1.5


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*metrics.jsonl is not JSON"):
        read_metrics(tmp_path)

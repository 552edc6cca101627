# SPDX-License-Identifier: Apache-2.0
"""Files of the training loop, and its end when numbers break."""

import numpy as np
import pytest

from mmdisco_jax.training.loop import LoopSpec, NotFiniteError
from mmdisco_jax.training.metrics_log import read_metrics
from tests.support import toy_training as toy


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_names_step_metric_and_records(tmp_path, bad):
    seen = {}

    def broken(batch):
        seen["records"] = batch["index"].tolist()
        return batch | {
            "x": np.where(batch["index"][:, None] == seen["records"][3], bad, batch["x"])
        }

    with pytest.raises(NotFiniteError) as caught:
        toy.run(tmp_path, toy.Batches(7, broken))
    message = str(caught.value)
    assert message.startswith("loss is nan at step 7." if bad is np.nan else "loss is ")
    assert "at step 7." in message and f"records {seen['records']}" in message
    assert "train.learning_rate" in message
    # The checkpoint of step 6 is the last, whole, and what a mended run goes on from.
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [3, 6]
    assert read_metrics(tmp_path)[-1]["step"] == 6
    assert all(np.isfinite(leaf).all() for leaf in toy.run(tmp_path).values())


def test_lines_hold_each_steps_loss_and_means_over_the_steps_that_have_a_metric(tmp_path):
    toy.run(tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 12]
    assert [len(row["loss_trace"]) for row in rows] == [3, 1, 2, 2, 1, 3]
    for row in rows:
        np.testing.assert_allclose(row["loss"], np.mean(row["loss_trace"]), rtol=1e-12)
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_intervals_below_one_are_refused():
    with pytest.raises(ValueError, match=r"train.log_every is 0; it must be at least 1"):
        LoopSpec(num_steps=1, log_every=0, save_every=1)

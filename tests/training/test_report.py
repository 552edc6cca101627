# SPDX-License-Identifier: Apache-2.0
"""The picture at the end of a training."""

import matplotlib.image
import pytest

from mmdisco_jax.training.report import by_bin, write_report


def rows() -> list[dict]:
    """Ten lines whose values by bin are those of the line until the last two, then `bin`."""
    return [
        {
            "step": 10 * n,
            "seconds": 6.0 * n,
            "loss": 1 / n,
            "best_scale_audio": 1.0,
            "best_scale_video": 0.5,
            **({f"accuracy/{i}": i / 10 if n > 8 else 99.0 for i in range(10)}),
            **({f"real_share/{i}": i / 10 for i in range(10) if i != n % 3}),
            "loss_trace": [1.0] * 10,
        }
        for n in range(1, 11)
    ]


def test_values_by_bin_are_means_over_the_last_fifth():
    bins = by_bin(rows())
    assert set(bins) == {"accuracy", "real_share"}
    assert bins["accuracy"] == pytest.approx({i: i / 10 for i in range(10)})
    assert bins["real_share"] == pytest.approx({i: i / 10 for i in range(10)})


def test_a_report_has_a_panel_for_each_metric(tmp_path):
    write_report(tmp_path / "report.png", rows(), title="discriminator")
    picture = matplotlib.image.imread(tmp_path / "report.png")
    assert picture.shape[1] > 1500 and picture.shape[0] > 700  # four panels, two rows
    assert picture[..., :3].std() > 0.05
    write_report(tmp_path / "one.png", [{"step": 1, "seconds": 1.0, "loss": 2.0}], title="short")


def test_a_run_without_metrics_has_no_report(tmp_path):
    with pytest.raises(ValueError, match="no metrics to draw"):
        write_report(tmp_path / "report.png", [], title="none")

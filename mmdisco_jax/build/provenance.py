# SPDX-License-Identifier: Apache-2.0
"""Which noise schedules weights were trained with, in their file: no others may use them.

A base model of 1000 levels, asked for 100 of another schedule, takes each level for another amount
of noise, and its samples are poor without a word.
"""

import json
from typing import Any

from mmdisco_jax.build.sections import Config, schedules
from mmdisco_jax.training.weights import read_metadata

KEY = "schedules"  # of a weight file's metadata
_SHOWN = 12  # digits of a digest


def schedule_record(config: Config) -> str:
    """The schedules that `config.train.target` is trained with, for its file: {m: ...} as JSON."""
    target, rows = config.train.target, _rows(config)
    # A base of one modality knows one schedule; a joint base and a discriminator know all.
    return json.dumps({target: rows[target]} if target in rows else rows)


def _rows(config: Config) -> dict[str, dict[str, Any]]:
    digests = {m: schedule.digest() for m, schedule in schedules(config).items()}
    return {m: {"section": config.schedules[m].to_dict(), "abar": digests[m]} for m in digests}


def check_schedules(config: Config, path: str) -> None:
    """ValueError if the file `path` names other schedules than the config's; silent without any.

    `config.sample.force_schedule` allows it.
    """
    recorded = json.loads(read_metadata(path).get(KEY, "{}"))
    if config.sample.force_schedule or not recorded:
        return
    mine = _rows(config)
    found = [
        f"{m}: trained with {_shown(row)}, the config has {_shown(mine.get(m))}"
        for m, row in recorded.items()
        if row["abar"] != mine.get(m, {}).get("abar")
    ]
    if found:
        raise ValueError(
            f"{path} is of another noise schedule ({'; '.join(found)}), so that each level would "
            "stand for another amount of noise. Set config.schedules to those of the training, or "
            "give weights trained with the config's; config.sample.force_schedule=True goes on."
        )


def _shown(row: dict[str, Any] | None) -> str:
    if row is None:
        return "none"
    return f"{json.dumps(row['section'])} [abar {row['abar'][:_SHOWN]}]"

# SPDX-License-Identifier: Apache-2.0
"""Model card in the form of the Hugging Face Hub: YAML front matter, then Markdown."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import mmdisco_jax
from mmdisco_jax.io import write_bytes
from mmdisco_jax.types import ClipFormat

_PAPER = "https://arxiv.org/abs/2405.17842"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A weight file of the release: its name in the folder, SHA-256, and the file's metadata."""

    name: str
    sha256: str
    metadata: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card states.

    Attributes:
      settings: of the section `release`: license, license_link, title, description, datasets.
      dataset: name of the dataset that the experiment trains on.
      clip: format of the clips.
      reads_text: whether samples are made from prompts.
      weights: files in the folder.
      repositories: models on the Hub that are loaded beside them.
      licences: of the base models, by a description of each.
      table: measures as a Markdown table, "" for none.
      measures: {measure: value} of `measured`, the variant that the table of the Hub shows.
    """

    settings: Mapping[str, Any]
    dataset: str
    clip: ClipFormat
    reads_text: bool
    weights: tuple[WeightFile, ...]
    repositories: tuple[str, ...] = ()
    licences: Mapping[str, str] = dataclasses.field(default_factory=dict)
    table: str = ""
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    measured: str = ""


def write_card(path: str | os.PathLike[str], card: Card) -> None:
    """Writes the card as a README.md; WriteError if that fails."""
    parts = [f"---\n{_front(card)}\n---", f"# {_title(card)}", *_text(card)]
    write_bytes(path, ("\n\n".join(part for part in parts if part) + "\n").encode())


def _title(card: Card) -> str:
    return card.settings["title"] or f"Audio and video together, trained on {card.dataset}"


def _front(card: Card) -> str:
    """The YAML that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData  # slow to import

    task = "text-to-audio-video" if card.reads_text else "audio-video-generation"
    results = [
        EvalResult(
            task_type=task,
            dataset_type=card.dataset,
            dataset_name=card.dataset,
            metric_type=name,
            metric_name=f"{name} ({card.measured})",
            metric_value=value,
        )
        for name, value in card.measures.items()
    ]
    link = card.settings["license_link"]
    other = {"license_name": "see-link", "license_link": link} if link else {}
    data = ModelCardData(
        library_name="mmdisco_jax",
        license=card.settings["license"],
        tags=[task, "diffusion", "jax", "flax", "audio", "video", "arxiv:2405.17842"],
        datasets=list(card.settings["datasets"]) or None,
        metrics=sorted(card.measures) or None,
        base_model=list(card.repositories) or None,
        model_name=_title(card) if results else None,
        eval_results=results or None,
        **other,
    )
    return data.to_yaml().strip()


def _text(card: Card) -> list[str]:
    clip = card.clip
    prompt = ' --prompts="a dog barks"' if card.reads_text else ""
    shape = f"{clip.seconds:g} s of {clip.width} x {clip.height} pixels at {clip.fps:g} frames a"
    return [
        card.settings["description"],
        f"Clips have {shape} second, with {clip.sample_rate_hz:,} samples of mono sound a second. "
        f"Frozen diffusion models of each modality, and a discriminator whose gradient makes them "
        f"agree ([MMDisCo]({_PAPER})), in the format of mmdisco_jax {mmdisco_jax.__version__}.",
        "## Use",
        "In an environment with `mmdisco_jax`, from a copy of this folder, wherever it lies:",
        f"```bash\nmmdisco sample --config=PATH_OF_THIS_FOLDER --workdir=runs/samples{prompt}\n```",
        '```python\nimport mmdisco_jax as mm\n\nsystem = mm.load("PATH_OF_THIS_FOLDER")\n```',
        "## Measures",
        _measures(card),
        "## Weights",
        _weights(card),
        _licences(card),
    ]


def _measures(card: Card) -> str:
    if not card.table:
        return "No measures were given with this release."
    return f"A cell is a value with its 95 % interval over clips.\n\n{card.table.strip()}"


def _weights(card: Card) -> str:
    rows = [f"| `{one.name}` | {_trained(one.metadata)} | `{one.sha256}` |" for one in card.weights]
    head = "| file | training | SHA-256 |\n| --- | --- | --- |\n"
    return head + "\n".join(rows) if rows else "All weights are those of the models named below."


def _trained(metadata: Mapping[str, str]) -> str:
    """What the metadata of a file say of its training."""
    if "step" in metadata:
        data = json.loads(metadata.get("config", "{}")).get("data", {}).get("name", "")
        on = f" on {data}" if data else ""
        return f"{metadata['target']}, {int(metadata['step']):,} steps{on}"
    if "source" in metadata:
        return f"converted from {metadata['source']}"
    return "not recorded"


def _licences(card: Card) -> str:
    link = card.settings["license_link"]
    lines = [f"These weights: {card.settings['license']}{f' ({link})' if link else ''}."]
    lines += [f"- {name}: {licence or 'not known'}" for name, licence in card.licences.items()]
    return "## Licences\n\n" + "\n".join(lines)

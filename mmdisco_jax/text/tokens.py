# SPDX-License-Identifier: Apache-2.0
"""Tokenization of prompts to a fixed length, with the text encoder's own tokenizer."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdisco_jax.text.prompts import clean_prompts

_MAX_LENGTH = 100_000  # transformers uses 10**30 for a tokenizer without a limit of its own
_SHOWN = 80  # characters of a prompt that a warning quotes


class Tokens(NamedTuple):
    """Token ids and mask of prompts, both int32 [b s]; the mask is 0 at padding and 1 elsewhere."""

    ids: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTokenizer:
    """Tokenizer that pads or cuts every prompt to one length.

    It warns about prompts that are cut, and quotes the lost text.

    Attributes:
      tokenizer: a tokenizer of transformers.
      length: number of tokens, including the marks of beginning and end.

    Raises:
      ValueError: the length leaves no room for a token, or the tokenizer has no padding token.
    """

    tokenizer: Any
    length: int

    def __post_init__(self):
        least = self.tokenizer.num_special_tokens_to_add() + 1
        if self.length < least:
            raise ValueError(f"length={self.length} of the tokens must be at least {least}.")
        if self.tokenizer.pad_token is None:
            raise ValueError(
                "the tokenizer has no padding token: set pad_token in its tokenizer_config.json."
            )

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Tokenizes prompts, after `clean_prompts`; "" is the unconditional prompt.

        Args:
          prompts: a list of prompts, or a single one.

        Raises:
          ValueError: a bad prompt, or no prompts.
        """
        cleaned = clean_prompts([prompts] if isinstance(prompts, str) else prompts)
        self._warn_of_cuts(cleaned)
        out = self.tokenizer(
            cleaned,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="np",
        )
        return Tokens(out["input_ids"].astype(np.int32), out["attention_mask"].astype(np.int32))

    def _warn_of_cuts(self, prompts: Sequence[str]) -> None:
        """Warns if prompts are cut: quotes the first one and counts the others."""
        room = self.length - self.tokenizer.num_special_tokens_to_add()
        all_ids = self.tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]
        cut = [number for number, ids in enumerate(all_ids) if len(ids) > room]
        if cut:
            prompt, ids = prompts[cut[0]], all_ids[cut[0]]
            lost = _quoted(self.tokenizer.decode(ids[room:]))
            others = f"; {len(cut) - 1} more are cut" if len(cut) > 1 else ""
            warnings.warn(
                f"prompt {cut[0] + 1} ({_quoted(prompt)}) has {len(ids)} tokens and the encoder "
                f"reads {room}: it does not see {lost}{others}.",
                stacklevel=3,
            )


def load_tokenizer(
    folder: str | Path, *, length: int | None = None, vocab_size: int | None = None
) -> PromptTokenizer:
    """Loads a tokenizer from a local folder, as transformers' `save_pretrained` writes it.

    Args:
      length: number of tokens of each prompt; by default the limit that the folder states.
      vocab_size: vocabulary size of the encoder, to check that the two belong together.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no readable tokenizer, no limit of tokens, or more tokens than the encoder has.
    """
    from transformers import AutoTokenizer  # takes seconds

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such tokenizer folder")
    try:
        # Runs no code from the folder and uses no network.
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # damage raises many types, from transformers, tokenizers or json
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{folder}: holds no readable tokenizer ({type(error).__name__}: {reason}). It needs "
            "tokenizer_config.json with tokenizer.json, or with vocab.json and merges.txt."
        ) from error
    length = int(tokenizer.model_max_length if length is None else length)
    if length > _MAX_LENGTH:
        raise ValueError(
            f"{folder}: names no limit of tokens; set model_max_length in its "
            "tokenizer_config.json, or give the length."
        )
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the encoder {vocab_size}: they "
            "do not belong together."
        )
    return PromptTokenizer(tokenizer=tokenizer, length=length)


def _quoted(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")

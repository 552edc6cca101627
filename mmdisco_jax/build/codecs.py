# SPDX-License-Identifier: Apache-2.0
"""Config sections to codecs, with the weights of those that are networks."""

from typing import Any

import jax
import numpy as np

from mmdisco_jax.build.pretrained import Part, filled, is_pretrained, part
from mmdisco_jax.build.sections import Config, named
from mmdisco_jax.codecs import CODECS, autoencoder_kl, hifi_gan
from mmdisco_jax.codecs.vae_frames import VaeFrames
from mmdisco_jax.codecs.vae_mel import VaeMel
from mmdisco_jax.codecs.weighted import Loaded


def codecs(config: Config) -> dict[str, Any]:
    """Signal <-> latent of each modality: objects with encode(x) and decode(x)."""
    return {m: _codec(config, m) for m in config.codecs}


def compiled_encoders(config: Config) -> dict[str, Any]:
    """Compiled functions {m: batch of clips -> latents}."""
    made = codecs(config)
    # What is `Loaded` compiles itself, with its weights as an argument.
    return {m: c.encode if isinstance(c, Loaded) else jax.jit(c.encode) for m, c in made.items()}


def encoders(config: Config) -> dict[str, Any]:
    """Functions {m: batch of clips -> latents}; cached latents are taken as they are.

    ValueError for codecs that are networks, without a cache: they are no part of a training step.
    """
    if config.data.latents:
        return {m: lambda x: x for m in config.codecs}
    dear = [m for m, section in config.codecs.items() if is_pretrained(section)]
    if dear:
        raise ValueError(
            f"the codecs of {', '.join(dear)} are networks, which a training step does not run: "
            "set config.data.latents to a folder, and run prepare, which encodes the clips once."
        )
    return {m: codec.encode for m, codec in codecs(config).items()}


def decoded_shape(config: Config, modality: str, latent: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the clip that a latent of this shape is decoded to; no weights are read."""
    section, zeros = config.codecs[modality], np.zeros((1, *latent), np.float32)
    if not is_pretrained(section):
        return named(section, CODECS).decode(zeros).shape[1:]
    codec = _network(config, modality)
    return jax.eval_shape(codec.decode, codec.abstract, zeros).shape[1:]


def _codec(config: Config, modality: str) -> Any:
    section = config.codecs[modality]
    if not is_pretrained(section):
        return named(section, CODECS)
    codec, parts = _network(config, modality), _parts(config, modality)
    if "vocoder" not in parts:
        return Loaded(codec=codec, params=filled(parts["vae"], codec.abstract))
    params = {name: filled(found, codec.abstract[name]) for name, found in parts.items()}
    return Loaded(codec=codec, params=params)


def _network(config: Config, modality: str) -> Any:
    """The codec without its weights: `encode(params, x)` and `decode(params, x)`."""
    parts = _parts(config, modality)
    fields: dict[str, Any] = config.codecs[modality].to_dict()
    for used in ("weights", "folder", "vocoder"):
        fields.pop(used, None)
    vae = autoencoder_kl.spec_from_config(parts["vae"].config)
    kind = fields.pop("name")
    try:
        if kind == "vae_frames":
            return VaeFrames(spec=vae, **fields)
        if kind == "vae_mel":
            vocoder = hifi_gan.spec_from_config(parts["vocoder"].config)
            return VaeMel(vae=vae, vocoder=vocoder, **fields)
    except TypeError as error:
        raise ValueError(f"config.codecs.{modality}: {error}.") from error
    raise ValueError(f"config.codecs.{modality} is {kind!r}: choose vae_frames or vae_mel.")


def _parts(config: Config, modality: str) -> dict[str, Part]:
    section = config.codecs[modality]
    parts = {"vae": part(config, section.weights, section.folder, "AutoencoderKL")}
    if "vocoder" in section:
        parts["vocoder"] = part(config, section.weights, section.vocoder, "SpeechT5HifiGan")
    return parts

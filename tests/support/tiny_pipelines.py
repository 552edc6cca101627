# SPDX-License-Identifier: Apache-2.0
"""Random AudioLDM and AnimateDiff pipelines of diffusers, saved as users have them."""

from pathlib import Path
from typing import Any

import torch
import transformers

from mmdisco_jax.experiment import load_config
from tests.support import text_encoders as tiny
from tests.support.reference import diffusers

FRAMES, SIDE, STEPS, SECONDS = 4, 16, 3, 0.5
LENGTH = 12  # tokens
CLAP_DIM, CLIP_DIM = 16, 20
# Of the pipelines below at this clip: the autoencoders halve each side.
SHAPES = {"audio": (25, 32, 8), "video": (FRAMES, SIDE // 2, SIDE // 2, 4)}
TEXT_SHAPES = {"audio": (CLAP_DIM,), "video": (LENGTH, CLIP_DIM)}
BETAS = {"audio": (0.0015, 0.0195), "video": (0.00085, 0.012)}


def save(folder: Path) -> dict[str, Any]:
    """Writes folder/audio and folder/video; returns the pipelines."""
    pipelines = {"audio": _audioldm(folder / "parts"), "video": _animatediff(folder / "parts")}
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(folder / name)
    return pipelines


def _scheduler(modality: str) -> Any:
    low, high = BETAS[modality]
    return diffusers.DDIMScheduler(
        beta_start=low,
        beta_end=high,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _vae(channels: int, latent: int, seed: int) -> Any:
    return tiny.random_(
        diffusers.AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            latent_channels=latent,
            norm_num_groups=4,
        ),
        seed,
    )


def _audioldm(folder: Path) -> Any:
    size = tiny.save_roberta_tokenizer(folder / "clap", length=LENGTH)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16),
        attention_head_dim=4,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=CLAP_DIM,
        class_embeddings_concat=True,
    )
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=64,
            upsample_initial_channel=16,
            upsample_rates=(5, 8, 4),
            upsample_kernel_sizes=(15, 16, 8),
            resblock_kernel_sizes=(3,),
            resblock_dilation_sizes=((1, 3),),
            normalize_before=False,
        )
    )
    return diffusers.AudioLDMPipeline(
        vae=_vae(1, 8, 1),
        text_encoder=tiny.clap_model(vocab_size=size, projection_dim=CLAP_DIM),
        tokenizer=transformers.AutoTokenizer.from_pretrained(str(folder / "clap")),
        unet=tiny.random_(unet, 2),
        scheduler=_scheduler("audio"),
        vocoder=tiny.random_(vocoder, 3),
    )


def _animatediff(folder: Path) -> Any:
    size = tiny.save_clip_tokenizer(folder / "clip", length=LENGTH)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CLIP_DIM,
        attention_head_dim=4,
    )
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        motion_max_seq_length=16,
        use_motion_mid_block=False,
    )
    clip = tiny.clip_model(
        vocab_size=size,
        hidden_size=CLIP_DIM,
        max_position_embeddings=LENGTH,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
    )
    pipeline = diffusers.AnimateDiffPipeline(
        vae=_vae(3, 4, 4),
        text_encoder=clip,
        tokenizer=transformers.AutoTokenizer.from_pretrained(str(folder / "clip")),
        unet=unet,
        motion_adapter=adapter,
        scheduler=_scheduler("video"),
    )
    tiny.random_(pipeline.unet, 5)
    return pipeline


def embed(pipelines: dict[str, Any], prompts: list[str]) -> dict[str, torch.Tensor]:
    """Prompts as the pipelines encode them: CLAP's unit vectors, CLIP's last hidden state."""
    made = {}
    for name, pipeline in pipelines.items():
        tokens = pipeline.tokenizer(
            prompts,
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            if name == "audio":
                out = pipeline.text_encoder(**tokens).text_embeds
                made[name] = torch.nn.functional.normalize(out, dim=-1)
            else:
                made[name] = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    return made


def config(argument: str, audio: Path | str, video: Path | str) -> Any:
    """The config of AudioLDM and AnimateDiff for pipelines of `save`, in their folders.

    Latents, texts and codecs are those of the pipelines' files; nothing here states them.
    """
    made: Any = load_config(f"configs/vggsound_audioldm_animatediff.py:{argument}")
    made.clip.update(seconds=SECONDS, height=SIDE, width=SIDE)
    made.data.options.update(height=SIDE, width=SIDE)
    for section in made.bases.values():
        section.param_dtype = section.compute_dtype = "float32"
    made.weights.update(audio=str(audio), video=str(video), motion="")
    made.sample.num_steps = STEPS
    for stepper in made.sample.samplers.values():
        if "stride" in stepper:
            stepper.stride = 1000 // STEPS
    with made.unlocked():
        made.discriminator.update(
            model_channels=8, num_res_blocks=1, emb_dim=8, num_groups=4, channel_mult=(1, 2)
        )
    return made

"""Key names that training scripts settled on, for trees that no profile knows."""

from __future__ import annotations

import re

COUNTERS = frozenset(
    "epoch global_step step steps iteration iter iter_num n_iter num_updates global_steps current_epoch "
    "current_step epochs_run steps_run step_count cur_epoch start_epoch last_epoch epoch_num num_steps "
    "train_step training_step iterations completed_steps total_steps_done trained_steps global_iter "
    "current_iter it niter n_epoch epochs_done steps_done num_epochs_done tokens_seen num_iter "
    "batch_steps".split()
)
"""An integer under one of these says how far training has come."""

POSITIONS = frozenset(
    "batch batch_idx batch_index step_in_epoch iterations_in_epoch batch_in_epoch batches_seen sample_idx "
    "samples_seen consumed_samples consumed_train_samples data_index data_position dataloader_step "
    "samples_in_epoch steps_in_epoch data_offset".split()
)
"""An integer under one of these says how far inside an epoch the data has been read."""

COUNTER_HOMES = frozenset(
    "meta trainer train_state state training progress timestamp counters loop extra_state train info "
    "trainer_state".split()
)
"""Containers whose counters are training's; elsewhere a ``step`` may be anything's."""

DATA = frozenset(
    "dataloader train_dataloader dataloader_state dataloader_state_dict train_loader sampler sampler_state "
    "data_state dataset_state data_sampler train_iterator iterator dl_state_dict loader data_loader "
    "train_sampler dataloaders sampler_state_dict train_dataloader_state train_dataloader_state_dict".split()
)
VAGUE_DATA = frozenset({"data", "dataset"})
"""Names that mean the position in the data only if what stands there speaks of one."""

POSITION_WORDS = re.compile(r"position|epoch|index|step|sampler|batch|generator|order|offset|cursor|consumed")

CONFIG = frozenset(
    "args cfg config configs hparams hyper_parameters hyperparameters model_args opt options train_args "
    "training_args model_config arguments params_config settings conf arch dims ds_config vocab "
    "training_config "
    "model_kwargs init_args config.json training_args.bin generation_config.json adapter_config.json".split()
)

WEIGHTS = frozenset(
    "state_dict model model_state_dict model_state model_states module net network params generator "
    "discriminator "
    "G D teacher student weights encoder decoder netG netD policy actor critic unet vae backbone head "
    "lora adapter "
    "text_encoder model_dict modelstate net_state_dict network_state_dict".split()
)

PARTS = frozenset(
    "generator discriminator encoder decoder actor critic backbone head adapter vae unet text_encoder".split()
)
"""Those of them that name a part of a model."""

_EMA = re.compile(
    r"(?:^|[_.\s-])(?:ema|swa|averaged?|shadow|polyak)(?:$|[_.\s-])|^ema[A-Z]|_ema$|model_?ema", re.IGNORECASE
)
_RNG = re.compile(r"(?:^|[_.\s-])rng(?:$|[_.\s-])|^rng|random_states?|^rng_states?|cuda_rng|_rng$", re.IGNORECASE)
_SCALER = re.compile(r"scaler|^amp$|amp_scaling_state|loss_scale", re.IGNORECASE)


def is_ema(name: str) -> bool:
    """Whether a key speaks of averaged weights."""
    return _EMA.search(name) is not None


def is_rng(name: str) -> bool:
    """Whether a key speaks of random generators' states."""
    return _RNG.search(name) is not None


def is_scaler(name: str) -> bool:
    """Whether a key speaks of a loss scaler."""
    return _SCALER.search(name) is not None


def is_weights(name: str) -> bool:
    """Whether a key speaks of a model's weights."""
    lowered = name.lower()
    return name in WEIGHTS or lowered.endswith((".safetensors", "_state_dict", "_weights")) or "model" in lowered

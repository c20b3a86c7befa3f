"""DeepSpeed's settings for a training stage: a plain ZeRO stage, or the user's JSON file.

Left out: checking what the file says; DeepSpeed does that when the engine is made.
"""

import json
from pathlib import Path

from pydantic import JsonValue

from c2s_rl.errors import ConfigError, MissingFileError


def deepspeed_settings(source: int | Path, *, is_cuda: bool = False) -> dict[str, JsonValue]:
    """Read DeepSpeed's settings from a file, or make plain ones that run on any device.

    The optimiser is left out of the plain ones on purpose: transformers then gives DeepSpeed
    torch's own AdamW, which needs no compiler.

    Args:
        source: ZeRO stage 0-3, or a JSON file.
        is_cuda: Whether workers have GPUs.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it is not a JSON object.
    """
    if isinstance(source, Path):
        return _read_settings(source)
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": source,
            # A copy on another stream: pointless on a CPU, and ordering there is not guaranteed.
            "overlap_comm": is_cuda,
            # ZeRO-3 must hand out whole weights when a Hugging Face folder is written.
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31 - 1,  # DeepSpeed's own progress lines: never
    }


def _read_settings(path: Path) -> dict[str, JsonValue]:
    if not path.is_file():
        raise MissingFileError(
            f"workers.deepspeed must be a ZeRO stage 0-3 or a JSON file that exists, got {path}"
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"a DeepSpeed file must be JSON, got {error} in {path}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"a DeepSpeed file must be a JSON object, got {settings!r} in {path}")
    return settings

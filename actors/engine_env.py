"""Environment variables that vLLM, DeepSpeed and PyTorch read when they are first imported.

Ray gives them to an actor through its runtime environment, before the actor's process imports
anything.
"""

import os
from pathlib import Path

NVIDIA_DRIVER = Path("/proc/driver/nvidia")


def num_cores() -> int:
    """Cores this process may run on (respects CPU affinity)."""
    return len(os.sched_getaffinity(0))


def common_env(num_threads: int) -> dict[str, str]:
    """Variables for every worker process.

    Args:
        num_threads: Intra-op threads. Ray sets OMP_NUM_THREADS=1 otherwise.
    """
    return {
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Models and data are local: a lookup on a hub would only wait for a network.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
    }


def quiet_driver() -> None:
    """Keep libraries from drawing bars and warnings into this process's own output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not NVIDIA_DRIVER.exists():
        # transformers imports DeepSpeed, which looks for a GPU and warns that there is none
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def learner_env(num_threads: int, *, is_cpu: bool) -> dict[str, str]:
    """Variables for a DeepSpeed learner rank."""
    env = common_env(num_threads)
    # Without the second a rank on a GPU node that was given no GPU would still find them.
    return env | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""} if is_cpu else env


def rollout_env(num_threads: int, *, is_cpu: bool, kv_cache_gib: int) -> dict[str, str]:
    """Variables for a vLLM rollout worker."""
    env = common_env(num_threads) | {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": "1",
        # The engine runs inside the actor: one process less to watch, and our weight-transfer
        # engine is registered where the model lives.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Which of its two model runners vLLM uses decides which logits processor fits.
        "VLLM_USE_V2_MODEL_RUNNER": _model_runner(is_cpu=is_cpu),
    }
    if is_cpu:
        env |= {
            "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib),
            # Engine and learner take turns on the same cores; pinning would tie both to core 0.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
    return env


def _model_runner(*, is_cpu: bool) -> str:
    """The V2 runner needs CUDA; there the user's own choice goes first."""
    return "0" if is_cpu else os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "1")

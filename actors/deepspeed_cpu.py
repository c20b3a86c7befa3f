"""Making DeepSpeed usable on a machine without a C++ compiler."""


def skip_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce on a CPU.

    DeepSpeed builds that extension when it starts communicating on a CPU, although only its
    inference engine calls it. The build needs a compiler and ninja, takes half a minute, and a
    process killed in the middle leaves a lock that every later run waits for. Call it before
    DeepSpeed's communication starts.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

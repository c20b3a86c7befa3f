"""A policy on disk: is it there, and which one is it.

Left out: loading it (`c2s_rl/models/policy.py`).
"""

import hashlib
from pathlib import Path

from c2s_rl.checkpoint import sha256_of
from c2s_rl.errors import MissingFileError

# What makes a model: weights, settings, tokenizer. Manifests and hashes say when, not what.
MODEL_FILES = ("*.safetensors", "*.bin", "config.json", "tokenizer*", "vocab.json", "merges.txt")


def policy_sha256(folder: Path) -> str:
    """Hash the files of a policy, so that results say which policy they are of.

    Raises:
        MissingFileError: If the folder holds no model.
    """
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"a policy must be a folder with a config.json, got {folder}")
    found = {path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()

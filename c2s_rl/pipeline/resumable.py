"""A folder that is filled shard by shard and may only go on with what it was begun from.

`plan.json` says what that was: config and hashes of everything outside it. It is written before
the first shard; the stage's manifest, written last, holds it too.
"""

import json
from collections.abc import Collection
from pathlib import Path

from pydantic import JsonValue

from c2s_rl.checkpoint import MANIFEST, replace_text
from c2s_rl.errors import StageError

PLAN = "plan.json"


def begin(folder: Path, plan: dict[str, JsonValue], *, beside: Collection[str] = ()) -> bool:
    """Create the folder with its plan, or check that it has the same one.

    Args:
        folder: New, empty, or begun by an earlier call.
        plan: All that the content depends on.
        beside: What may be in the folder before its plan.

    Returns:
        False if the folder is finished.

    Raises:
        StageError: If it was begun with another plan (names what differs), or holds other files.
    """
    path = folder / PLAN
    if path.is_file():
        former = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in {*former, *plan} if former.get(key) != plan.get(key))
        if changed:
            key = changed[0]
            raise StageError(
                f"{folder} must go on with what it was begun from, got another {key}: "
                f"{former.get(key)!r} -> {plan.get(key)!r}; --overwrite begins again"
            )
        return not is_finished(folder)
    # Hidden names are what killed writers leave; their owners look after them.
    found = {p.name for p in folder.iterdir() if p.name[0] != "."} if folder.is_dir() else set()
    if (folder.exists() and not folder.is_dir()) or found - set(beside):
        raise StageError(
            f"an output folder must be new, empty or hold {PLAN}, got {folder} with other files"
        )
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(plan, indent=1, sort_keys=True) + "\n")
    return True


def is_finished(folder: Path) -> bool:
    """Whether the folder is whole."""
    return (folder / MANIFEST).is_file()


def finish(folder: Path, manifest: dict[str, JsonValue]) -> None:
    """Write the manifest: the folder is whole."""
    replace_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")

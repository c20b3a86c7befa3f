"""The one rule about a stage's output folder: never replace what no stage has written."""

from pathlib import Path

from c2s_rl.errors import StageError

MANIFEST = "manifest.json"


def require_replaceable(folder: Path) -> None:
    """Check that a stage may put its output at `folder`.

    Raises:
        StageError: If it is a file, or a folder with files but without a stage's manifest.
    """
    if folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise StageError(
            f"an output folder must be new, empty or hold {MANIFEST}, got {folder} with other files"
        )

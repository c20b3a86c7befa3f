"""Folders that are either whole or not there: written aside, hashed, then renamed into place.

A checkpoint (or a stage's output) is a folder with `hashes.json`, which lists the size and SHA-256
of every other file in it. What is inside the files is their owner's business: this module knows
neither tensors nor configs. One run folder has one writer at a time; nothing here locks.
"""

import ctypes
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from c2s_rl.errors import CheckpointError, StageError

HASHES = "hashes.json"
MANIFEST = "manifest.json"  # what every stage that writes a data folder leaves in it
SCHEMA_VERSION = 1

log = logging.getLogger(__name__)

# sync_file_range(2) of Linux: begins to write what is not on disk yet and, unlike
# POSIX_FADV_DONTNEED, leaves it in memory for who reads it next.
SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


@dataclass(frozen=True)
class FileHash:
    """What a file must be to be the one that was written."""

    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal."""


def replace_text(path: Path, text: str) -> None:
    """Write a file aside and rename it, so that a kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Give a new folder to write into, and put it at `final` only when the block ends well.

    Every file is hashed and flushed to disk before the rename, and the rename itself after it, so
    that a process killed at any moment leaves the former folder, or the new one, never a mixture.
    A folder that is already at `final` is replaced.

    Args:
        final: Where the folder shall be; its parent is created.

    Yields:
        The empty folder to write into, beside `final` (same file system, so rename is atomic).
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(final.parent, name=final.name)
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        place_folder(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # gone already unless something was raised


def place_folder(folder: Path, final: Path, known: Mapping[str, FileHash] | None = None) -> None:
    """Put a folder that was written aside, perhaps over several runs, at `final` as a whole.

    It is hashed, flushed and renamed as `atomic_folder` does it.

    Args:
        folder: Whole; on the file system of `final`. It is renamed, not copied.
        final: Where it shall be; a folder that is there already is replaced.
        known: Sizes and hashes of files in it that need not be read again for them.
    """
    (folder / HASHES).unlink(missing_ok=True)  # of a run that was killed before the rename
    _write_hashes(folder, known or {})
    _sync_tree(folder)
    _move_into_place(folder, final)


def require_replaceable(folder: Path) -> None:
    """Check that a stage may put its output at `folder`.

    Raises:
        StageError: If it is a file, or a folder with files but without a stage's manifest and
            hashes. A run's own folder has the one and not the other.
    """
    is_output = all((folder / name).is_file() for name in (MANIFEST, HASHES))
    if folder.is_dir() and (is_output or not any(folder.iterdir())):
        return
    if folder.exists():
        raise StageError(
            f"an output folder must be new, empty or hold {MANIFEST} and {HASHES}, got {folder} "
            "with other files"
        )


def verify(folder: Path) -> None:
    """Check that a folder made by `atomic_folder` still holds exactly the bytes it was given.

    Files that `hashes.json` does not list are none of its business and are left alone.

    Raises:
        CheckpointError: If the folder or its `hashes.json` is missing or unreadable, or a file is
            missing, truncated or altered; names the file and both sizes or both hashes.
    """
    for name, (size, sha256) in _read_hashes(folder).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"a checkpoint must hold every file it lists, got no {path}")
        found_size = path.stat().st_size
        if found_size != size:
            raise CheckpointError(
                f"a checkpoint's file must have its recorded size of {size} bytes, "
                f"got {found_size} in {path}"
            )
        found = sha256_of(path)
        if found != sha256:
            raise CheckpointError(
                f"a checkpoint's file must have its recorded SHA-256 {sha256}, "
                f"got {found} in {path}"
            )


def latest_checkpoint(root: Path, prefix: str = "step-") -> Path | None:
    """Find the newest whole checkpoint; each newer one that is not whole is logged and passed over.

    Args:
        root: The folder that holds the checkpoints; it need not exist.
        prefix: Start of their names; a number follows, which orders them.

    Returns:
        The checkpoint's folder, or None if there is no whole one.
    """
    for folder in reversed(_numbered(root, prefix)):
        try:
            verify(folder)
        except CheckpointError as error:
            log.warning("passing over checkpoint %s: %s", folder.name, error)
        else:
            return folder
    return None


def prune(root: Path, keep: int, *, prefix: str = "step-") -> list[Path]:
    """Delete all checkpoints but the newest `keep` that have their `hashes.json`.

    Returns:
        The folders that were deleted, oldest first.

    Raises:
        ValueError: If `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"at least 1 checkpoint must be kept, got keep={keep}")
    whole = [folder for folder in _numbered(root, prefix) if (folder / HASHES).is_file()]
    doomed = whole[:-keep]
    for folder in doomed:
        # Renamed first: a process killed while deleting leaves no half checkpoint with a good name.
        aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
        folder.rename(aside)
        shutil.rmtree(aside)
    return doomed


def clean_leftovers(root: Path, name: str = "*") -> list[Path]:
    """Remove what killed runs left half-written under `root`; call it when a run starts.

    A folder that was set aside to be replaced comes back if its successor never arrived.

    Args:
        root: The folder that holds checkpoints or stage outputs; it need not exist.
        name: Only leftovers of this folder name; '*' for all.

    Returns:
        The leftovers that are gone now, in order of name.
    """
    leftovers = sorted(root.glob(f".{name}.replaced-*")) + sorted(root.glob(f".{name}.partial-*"))
    for leftover in leftovers:
        stem, _, kind = leftover.name[1:].rpartition(".")
        final = root / stem
        if kind.startswith("replaced-") and not final.exists():
            leftover.rename(final)
            log.warning("brought back %s, whose replacement was interrupted", final)
        else:
            shutil.rmtree(leftover)
            log.info("removed %s, left by an interrupted run", leftover)
    return leftovers


def sha256_of(path: Path) -> str:
    """Hash a file's bytes; returns the SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _numbered(root: Path, prefix: str) -> list[Path]:
    """Checkpoint folders in ascending order of their number; other names are not checkpoints."""
    found = [
        (int(number), folder)
        for folder in root.glob(f"{prefix}*")
        if (number := folder.name.removeprefix(prefix)).isdecimal() and folder.is_dir()
    ]
    return [folder for _, folder in sorted(found)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hash_file(path: Path) -> FileHash:
    """Return the size and the hash of a file."""
    return FileHash(path.stat().st_size, sha256_of(path))


def _write_hashes(folder: Path, known: Mapping[str, FileHash]) -> None:
    files = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        files[name] = asdict(known.get(name) or hash_file(path))
    text = json.dumps({"schema_version": SCHEMA_VERSION, "files": files}, indent=1)
    (folder / HASHES).write_text(text + "\n", encoding="utf-8")


def _read_hashes(folder: Path) -> dict[str, tuple[int, str]]:
    """Read `hashes.json` as name -> (size in bytes, SHA-256)."""
    path = folder / HASHES
    if not path.is_file():
        raise CheckpointError(f"a checkpoint must hold {HASHES}, got none in {folder}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        files = {name: (int(f["size"]), str(f["sha256"])) for name, f in content["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{HASHES} must list sizes and hashes, got {error} in {path}"
        ) from None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{HASHES} must have schema_version {SCHEMA_VERSION}, got {version!r} in {path}"
        )
    return files


def start_flush(path: Path) -> None:
    """Let a file go to disk while others are written, so that `place_folder` need not wait for it.

    Nothing is flushed for certain when this returns, and file systems that know no such wish
    (tmpfs, some network disks) ignore it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Flush every file and folder to disk, so that the rename cannot overtake the content."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(partial: Path, final: Path) -> None:
    replaced = final.with_name(f".{final.name}.replaced-{os.getpid()}")
    if final.exists():
        # A folder with content cannot be renamed over; clean_leftovers mends a kill in between.
        final.rename(replaced)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)

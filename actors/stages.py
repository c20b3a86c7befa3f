"""Which stages of a run are done, and whether what lies there was made by the same config.

`<run>/stages/<stage>.json` is written when a stage starts and again when it is done. Its
fingerprint covers the stage's own config sections and what the stages before it made. A stage that
is done is reused; one that was killed is continued; one made by another config, or of files that
changed since, is replaced only when that is asked for, and kept aside until its successor is done.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, JsonValue

from c2s_rl.checkpoint import MANIFEST, sha256_of
from c2s_rl.errors import StageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageKey:
    """What a stage's output depends on."""

    stage: str
    """Name of the stage."""
    sections: Mapping[str, JsonValue]
    """Config section to its resolved values."""
    upstream: Mapping[str, str]
    """Stage before it to the fingerprint of what that one made."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Large file to what tells its version without reading it; not part of the fingerprint, for the
    same file may get another time of change."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over sections and upstream fingerprints."""
        text = json.dumps([self.stage, self.sections, self.upstream], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def resolved(config: BaseModel | tuple[BaseModel, ...]) -> JsonValue:
    """Plain values of a config section, as fingerprints and config.yaml hold them."""
    if isinstance(config, tuple):
        return [section.model_dump(mode="json") for section in config]
    return config.model_dump(mode="json")


class StageLedger:
    """The records of one run folder."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / "stages"

    def fingerprint(self, stage: str) -> str | None:
        """Fingerprint of what a finished stage made; None if it is not finished.

        It covers what the stage depends on, and its manifest, which has the hashes of what it read.
        """
        record = self._read(stage)
        if not record or not record["is_done"]:
            return None
        fingerprint, made = str(record["fingerprint"]), record.get("manifest_sha256")
        if not made:
            return fingerprint
        return hashlib.sha256(f"{fingerprint} {made}".encode()).hexdigest()

    def suspects(self, key: StageKey) -> list[str]:
        """Return the inputs of which a finished stage saw another version, or may have."""
        record = self._read(key.stage)
        if not record or not record["is_done"]:
            return []
        known = _inputs(record)
        return [name for name, version in key.inputs.items() if known.get(name) != version]

    def begin(
        self, key: StageKey, output: Path, *, overwrite: bool, changed: Sequence[str] = ()
    ) -> bool:
        """Prepare to run a stage.

        Args:
            key: What its output will depend on.
            output: Its folder or file, set aside when it is overwritten.
            overwrite: Replace what another config made, or what was made of other files.
            changed: Inputs that have other contents than when the output was made.

        Returns:
            False if the stage is done already and can be reused.

        Raises:
            StageError: If another config made what is there and `overwrite` is off; names what
                changed.
        """
        record = self._read(key.stage)
        if record and record["fingerprint"] == key.fingerprint and not changed:
            if record["is_done"] and output.exists():
                self._note_versions(record, key)
                return False
        elif (record and _is_begun(output)) or output.exists():
            if not overwrite:
                changes = "; ".join(f"other contents of {name}" for name in changed[:5])
                raise StageError(
                    f"stage {key.stage!r} must go on with the config and files that made {output}, "
                    f"got {changes or _changes(record, key)}; choose another name, or --overwrite "
                    "to replace it"
                )
            self._set_aside(key.stage, output)
        self._write(key)
        return True

    @contextmanager
    def running(self, key: StageKey, output: Path) -> Iterator[None]:
        """Do a stage that has begun in this block.

        If it ends well, the stage is done and what it replaced is deleted; if it fails before it
        wrote anything, as with a column that the cells lack, what it replaced comes back.
        """
        try:
            yield
        except BaseException:
            self._bring_back(key.stage, output)
            raise
        self._write(key, output)
        _remove(_former(output))
        _remove(_former(self._path(key.stage)))

    def _set_aside(self, stage: str, output: Path) -> None:
        """Make room for what another config will make; of two things the finished one is kept."""
        record = self._read(stage)
        former, path = _former(output), self._path(stage)
        if former.exists() and not (record and record["is_done"]):
            _remove(output)
            return
        logger.info("keeping %s, made by another config, in %s until it is done", output, former)
        for old, aside in ((output, former), (path, _former(path))):
            _remove(aside)
            if old.exists():
                old.rename(aside)

    def _bring_back(self, stage: str, output: Path) -> None:
        former, path = _former(output), self._path(stage)
        if not former.exists() or _is_begun(output):
            return
        former.rename(output)
        path.unlink(missing_ok=True)
        if _former(path).exists():
            _former(path).rename(path)
        logger.info("brought back %s: its successor wrote nothing", output)

    def _note_versions(self, record: Mapping[str, JsonValue], key: StageKey) -> None:
        """Remember versions of inputs that were found to be the same, so as not to read them again.

        Those of files that are gone stay.
        """
        versions = _inputs(record) | dict(key.inputs)
        if versions != _inputs(record):
            self._save(key.stage, record | {"inputs": versions})

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.json"

    def _read(self, stage: str) -> dict[str, JsonValue] | None:
        path = self._path(stage)
        if not path.is_file():
            return None
        record: dict[str, JsonValue] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def _write(self, key: StageKey, done: Path | None = None) -> None:
        """Record a stage that begins, or one that is done and left its output."""
        record: dict[str, JsonValue] = {
            "fingerprint": key.fingerprint,
            "is_done": done is not None,
            "inputs": dict(key.inputs),
            "sections": dict(key.sections),
            "upstream": dict(key.upstream),
        }
        if done is not None and (done / MANIFEST).is_file():
            record["manifest_sha256"] = sha256_of(done / MANIFEST)
        self._save(key.stage, record)

    def _save(self, stage: str, record: Mapping[str, JsonValue]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(stage)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def _inputs(record: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Versions of the inputs that a stage saw; none in the records of stages that have none."""
    inputs = record.get("inputs")
    return dict(inputs) if isinstance(inputs, dict) else {}


def _former(path: Path) -> Path:
    """Where a file or folder is kept until its successor is there."""
    return path.with_name(f".former-{path.name}")


def _remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_begun(output: Path) -> bool:
    """Whether a stage left its output, or hidden work beside it that the same config goes on with.

    One that failed before it wrote anything (a column that the cells lack) left nothing to protect.
    """
    return output.exists() or any(output.parent.glob(f".{output.name}.*"))


def _changes(record: Mapping[str, JsonValue] | None, key: StageKey) -> str:
    if record is None:
        return "no record of one"
    former, current = _flat(record["sections"]), _flat(dict(key.sections))
    changed = [
        f"{name} {former.get(name)!r} -> {current.get(name)!r}"
        for name in sorted(former.keys() | current.keys())
        if former.get(name) != current.get(name)
    ]
    if not changed:
        changed = [f"another output of {' and '.join(key.upstream)}"]
    return "; ".join(changed[:5])


def _flat(value: JsonValue, prefix: str = "") -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        return {prefix: value}
    items: dict[str, JsonValue] = {}
    for name, child in value.items():
        items |= _flat(child, f"{prefix}.{name}" if prefix else name)
    return items

"""The user's files that stages are made of: which there are, and whether they are still the same.

Small ones (questions, captions, gene sets) are hashed at every start and belong to a stage's key.
Large ones (cells) are told by size and time of change, and read again only where those differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from actors.run_config import RunConfig
from actors.run_files import CELLS


@dataclass(frozen=True)
class StageInputs:
    """How a stage's files are asked about; a stage without any has the defaults."""

    hashes: Callable[[RunConfig], Mapping[str, str | None]] = lambda _run: {}
    """Small file to its SHA-256; None where it is gone."""
    versions: Callable[[RunConfig], Mapping[str, str]] = lambda _run: {}
    """Large file that is there to what tells its version without reading it."""
    changed: Callable[[RunConfig, Sequence[str]], list[str]] = lambda _run, _suspects: []
    """Which of some large files have other contents than those the finished output was made of."""


def _corpus_hashes(run: RunConfig) -> Mapping[str, str | None]:
    from c2s_rl.pipeline import corpus

    assert run.corpus is not None
    return corpus.source_hashes(run.corpus)


def _convert_versions(run: RunConfig) -> Mapping[str, str]:
    from c2s_rl.pipeline import convert_inputs

    assert run.convert is not None
    return convert_inputs.versions(run.convert)


def _convert_changed(run: RunConfig, suspects: Sequence[str]) -> list[str]:
    from c2s_rl.data.shards import read_manifest
    from c2s_rl.pipeline import convert_inputs

    assert run.convert is not None
    manifest = read_manifest(run.folder / CELLS)
    return convert_inputs.changed_inputs(run.convert, manifest, suspects)


NO_INPUTS = StageInputs()
CONVERT = StageInputs(versions=_convert_versions, changed=_convert_changed)
CORPUS = StageInputs(hashes=_corpus_hashes)

"""The files that a conversion reads: cells, tables beside them, gene lists.

Which version of a file there is, is told by its path, size and time of change, which costs nothing.
A finished conversion whose file has another version is compared by the hashes in its manifest:
a file that was copied or touched is still the same. Left out: files that are gone, of which nothing
can be said.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from c2s_rl.cells.programs import program_path
from c2s_rl.checkpoint import sha256_of
from c2s_rl.config import expand_variables
from c2s_rl.data.scratch import identity_of
from c2s_rl.data.shards import CellManifest
from c2s_rl.data.source import hash_source, source_paths
from c2s_rl.data.source_config import SourceConfig
from c2s_rl.errors import C2SError
from c2s_rl.pipeline.convert_config import ConvertConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """A file or folder, or several files that are read as one."""

    name: str
    """As the config names it."""
    path_text: str = ""
    """The file, with variables, where it is no file of cells."""
    source: SourceConfig | None = None
    """How it is read, where it is a file of cells."""

    def paths(self) -> list[Path]:
        """List its files, or its folder.

        Raises:
            ConfigError: If a path names an environment variable that is not set.
            MissingFileError: If they are not there.
            DataError: If no format is known that the file could have.
        """
        if self.source is not None:
            return source_paths(self.source)
        return [Path(expand_variables(self.path_text))]

    def sha256(self) -> str:
        """Return the hash of its contents, as the manifest of the cells has it."""
        return hash_source(self.source) if self.source is not None else sha256_of(self.paths()[0])


def inputs_of(config: ConvertConfig) -> list[Input]:
    """List what a conversion reads; a file that is read twice is listed once."""
    found = [Input(source_name(source), source=source) for source in config.sources]
    found += [Input(path, path) for source in config.sources for path in source.table_paths]
    found += [Input(path, path) for path in program_paths(config)]
    return list({item.name: item for item in found}.values())


def source_name(source: SourceConfig) -> str:
    """Return what manifests call a file of cells."""
    return source.path or f"scanpy:{source.scanpy_dataset}"


def program_paths(config: ConvertConfig) -> tuple[str, ...]:
    """Return the files of the gene lists and sets that are kept, as the config names them."""
    paths = (program_path(name) for name in config.genes)
    return tuple(dict.fromkeys(path for path in paths if path))


def versions(config: ConvertConfig) -> dict[str, str]:
    """Return what tells each input that is there from another version of it, by its name."""
    found: dict[str, str] = {}
    for item in inputs_of(config):
        try:
            paths = item.paths()
        except C2SError:  # said by whoever opens it
            continue
        if all(path.exists() for path in paths):
            found[item.name] = identity_of(*paths)
    return found


def changed_inputs(
    config: ConvertConfig, manifest: CellManifest, suspects: Collection[str]
) -> list[str]:
    """Return the names of inputs whose contents are not those that were converted.

    Args:
        config: Of the conversion, the same as then.
        manifest: What it left.
        suspects: Names of inputs to look at; each is read as a whole.
    """
    recorded = {source.path: source.sha256 for source in manifest.sources}
    for source in manifest.sources:
        recorded |= source.tables_sha256
    recorded |= manifest.gene_files_sha256
    changed: list[str] = []
    for item in inputs_of(config):
        # A manifest of an earlier version has no hashes of gene lists: nothing is known then.
        if item.name in suspects and item.name in recorded:
            log.info("comparing %s with what was converted: another size or time", item.name)
            if item.sha256() != recorded[item.name]:
                changed.append(item.name)
    return changed

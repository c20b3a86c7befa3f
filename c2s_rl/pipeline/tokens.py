"""Token shards of a corpus: what `pretrain` and `sft` learn from, written before training starts.

    c2s-rl sft --config FILE      (writes <run>/sft/tokens/ first; pretrain likewise)

Whatever the size of the corpus, memory holds some runs of tokens, never the whole. Everything is
written file by file into a work folder beside the output; a run that was killed goes on from there
and ends with the same bytes. Left out: several machines tokenising at once (the tokenizer uses all
cores of one).
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from c2s_rl.checkpoint import (
    HASHES,
    MANIFEST,
    clean_leftovers,
    publish_folder,
    replace_text,
    require_replaceable,
    sha256_of,
)
from c2s_rl.data.gene_tokens import GeneTokenCounter
from c2s_rl.data.prompt_set import read_manifest
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.data.token_epoch import plan_epoch
from c2s_rl.data.token_file import FilePass
from c2s_rl.data.token_samples import SampleEncoder, fast_backend
from c2s_rl.data.token_shards import TokenManifest, read_token_manifest
from c2s_rl.data.token_source import SampleSource
from c2s_rl.data.token_statistics import TokenSide, TokenStatistics
from c2s_rl.errors import C2SError, MissingFileError
from c2s_rl.pipeline.token_writing import OnProgress, Sizes, TokenProgress, TokenWriter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["OnProgress", "Sizes", "TokenInputs", "TokenProgress", "write_token_shards"]

STATISTICS = "statistics.json"
PLAN = "plan.json"
TOKENIZER = "tokenizer.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenInputs:
    """What token shards are made from."""

    corpus: Path
    """Prompt shards of the stage `corpus`."""
    base_model: Path
    """Hugging Face folder with the tokenizer."""


def write_token_shards(
    inputs: TokenInputs,
    config: SftDataConfig,
    output: Path,
    *,
    seed: int,
    on_progress: OnProgress | None = None,
    sizes: Sizes | None = None,
) -> TokenManifest:
    """Tokenise the training side of a corpus; returns at once if that is done already.

    Args:
        inputs: Corpus and tokenizer.
        config: What is learnt and how it is laid out.
        output: Folder to write; put in place as a whole at the end. One that was made from other
            inputs is replaced.
        seed: Seeds order, eval split and mixture.
        on_progress: Called after every file and every shard.
        sizes: Tokens of runs and shards. Another shard size gives other rows, another run size
            the same bytes.

    Returns:
        The manifest as written.

    Raises:
        MissingFileError: If there is no corpus or no tokenizer.
        DataError: If there is nothing to learn from, a task of `tasks` or `mixture` is not in the
            corpus, a sample is too long and that is an error, or the tokenizer has no end token.
        StageError: If `output` holds something that no stage wrote.
    """
    sizes = sizes or Sizes()
    clean_leftovers(output.parent, name=output.name)
    require_replaceable(output)
    tokenizer = _load_tokenizer(inputs.base_model)
    source = SampleSource(inputs.corpus, config, seed)
    made_from = _made_from(source, tokenizer, sizes)
    work = output.with_name(f".{output.name}.work")
    if (output / MANIFEST).is_file():
        manifest = read_token_manifest(output)
        if manifest.made_from == made_from:
            log.info("%s is already there", output)
            shutil.rmtree(work, ignore_errors=True)  # of a run killed when all was done
            return manifest
    _claim(work, made_from)
    try:
        writer = _writer(source, tokenizer, work, sizes, on_progress or _ignore)
        manifest = _finish(writer, source, made_from)
    except C2SError:
        # It would end the same way again. A kill raises no such error, and leaves what is done.
        shutil.rmtree(work)
        raise
    publish_folder(writer.shards, output)
    shutil.rmtree(work)
    log.info(
        "%d samples of %d tokens in %d rows (%.1f %% full) in %s",
        manifest.num_samples(TokenSide.TRAIN),
        manifest.num_tokens(TokenSide.TRAIN),
        manifest.num_rows(TokenSide.TRAIN),
        100 * manifest.efficiency(TokenSide.TRAIN),
        output,
    )
    return manifest


def _writer(
    source: SampleSource,
    tokenizer: "PreTrainedTokenizerBase",
    work: Path,
    sizes: Sizes,
    on_progress: OnProgress,
) -> TokenWriter:
    encoder = SampleEncoder(tokenizer, source.config)
    quotas = plan_epoch(source)
    file_pass = FilePass(
        source=source,
        encoder=encoder,
        genes=GeneTokenCounter(encoder, read_manifest(source.corpus).symbols),
        codes={task: code for code, task in enumerate(quotas)},
        quotas=quotas,
        run_tokens=sizes.run_tokens,
    )
    return TokenWriter(file_pass, work, shard_tokens=sizes.shard_tokens, on_progress=on_progress)


def _finish(
    writer: TokenWriter, source: SampleSource, made_from: dict[str, JsonValue]
) -> TokenManifest:
    """Write shards, then what is said about them, into the work folder."""
    tallies = writer.tokenise()
    manifest = TokenManifest(
        made_from=made_from,
        tasks=tuple(writer.codes),
        max_length=source.config.max_length,
        counts=tuple(tally.counts for tally in tallies),
        shards=writer.write(tallies),
    )
    statistics = TokenStatistics(
        max_length=manifest.max_length,
        num_rows={side: manifest.num_rows(side) for side in TokenSide},
        efficiency={side: manifest.efficiency(side) for side in TokenSide},
        is_packed=source.config.packing,
        tallies=tallies,
    )
    for name, text in (
        (MANIFEST, manifest.model_dump_json(indent=1) + "\n"),
        (STATISTICS, statistics.model_dump_json(indent=1) + "\n"),
    ):
        (writer.shards / name).write_text(text, encoding="utf-8")
    return manifest


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    if not (folder / TOKENIZER).is_file():
        raise MissingFileError(f"the base model must be a folder with {TOKENIZER}, got {folder}")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    return tokenizer


def _made_from(
    source: SampleSource, tokenizer: "PreTrainedTokenizerBase", sizes: Sizes
) -> dict[str, JsonValue]:
    """What decides every byte of the shards."""
    words = f"{fast_backend(tokenizer).to_str()} {tokenizer.eos_token_id}"
    return {
        "config": source.config.model_dump(mode="json"),
        "seed": source.seed,
        "shard_tokens": sizes.shard_tokens,
        "corpus_sha256": _corpus_sha256(source),
        "tokenizer_sha256": hashlib.sha256(words.encode()).hexdigest(),
    }


def _corpus_sha256(source: SampleSource) -> str:
    """Hash the corpus' list of hashes, or its files where it has none."""
    hashes = source.corpus / HASHES
    if hashes.is_file():
        return sha256_of(hashes)
    parts = [sha256_of(path) for path in (source.corpus / MANIFEST, *source.files())]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _claim(work: Path, made_from: dict[str, JsonValue]) -> None:
    """Go on in a work folder of the same run; one of another run is removed."""
    plan = work / PLAN
    text = json.dumps(made_from, sort_keys=True)
    if plan.is_file() and plan.read_text(encoding="utf-8") == text:
        log.info("going on in %s", work)
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    replace_text(plan, text)


def _ignore(_progress: TokenProgress) -> None:
    """Tell nobody."""

"""Which completions may be sampled: the config section, and the trie it asks for.

Sampler and learner both call `gene_trie_for`, with the same arguments, and so share one mask.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from c2s_rl.cells.vocabulary import Vocabulary, shown
from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.decoding.gene_trie import GeneTrie
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.types import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKED_GENES = 32  # symbols of one text that is read back


class GeneMode(StrEnum):
    """When completions are held to the gene trie."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class GeneConstraint(FrozenConfig):
    """Holds completions to distinct genes of the vocabulary, then end-of-sequence."""

    mode: GeneMode = Field(
        GeneMode.AUTO, description="auto is on for tasks whose answer is a cell sentence"
    )
    min_genes: int = Field(1, ge=1, description="Fewest genes of a completion")
    max_genes: int | None = Field(
        None, ge=1, description="Most genes of a completion; default: what the token budget holds"
    )
    gene_list: Path | None = Field(
        None,
        description="Text file, one symbol a line: only these may be written (the 978 landmarks, "
        "the highly variable genes); default: the whole vocabulary",
    )

    @model_validator(mode="after")
    def _min_below_max(self) -> "GeneConstraint":
        if self.max_genes is not None and self.min_genes > self.max_genes:
            raise ValueError(
                f"min_genes must be at most max_genes={self.max_genes}, got {self.min_genes}"
            )
        return self

    def for_task(self, task: Task) -> "GeneConstraint":
        """Decide `auto`, and make the list's path one that other processes find.

        Raises:
            ConfigError: If it is on for a task whose answers are free text, or the path of
                `gene_list` names a variable that is not set.
        """
        is_cell_sentence = TASK_RULES[task].is_cell_sentence
        if self.mode is GeneMode.ON and not is_cell_sentence:
            raise ConfigError(
                "sampling.genes.mode may be on only for tasks whose answer is a cell sentence, "
                f"got {task.value}; set it to auto or off"
            )
        is_on = self.mode is not GeneMode.OFF and is_cell_sentence
        path = self.gene_list and Path(expand_variables(str(self.gene_list))).absolute()
        mode = GeneMode.ON if is_on else GeneMode.OFF
        return self.model_copy(update={"mode": mode, "gene_list": path})


def read_gene_list(path: Path, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Read symbols, one a line; empty lines are allowed.

    Returns:
        The symbols in the order of the vocabulary.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If a symbol is not in the vocabulary, stands there twice, or there is none.
    """
    if not path.is_file():
        raise MissingFileError(f"gene_list must be a file that exists, got {path}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    symbols = [line for line in lines if line]
    repeated = [s for s in dict.fromkeys(symbols) if symbols.count(s) > 1]
    if repeated or not symbols:
        raise DataError(
            f"gene_list must name genes once each, got {shown(repeated) or 'none'} in {path}"
        )
    try:
        indices = sorted(vocabulary.indices(symbols).tolist())
    except DataError as error:
        raise DataError(f"{error} in {path}") from error
    return tuple(vocabulary.symbols[index] for index in indices)


def gene_trie_for(
    tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary, constraint: GeneConstraint
) -> GeneTrie | None:
    """Build the trie of a run; None where the constraint is off.

    Args:
        tokenizer: The policy's.
        vocabulary: Symbols of the data.
        constraint: With its mode decided, as `GeneConstraint.for_task` returns it.

    Raises:
        ConfigError: If the mode is still auto, or the limits do not fit the symbols.
        MissingFileError: If `gene_list` does not exist.
        DataError: If the list holds unknown symbols, or the tokenizer cannot spell genes one by
            one so that they are read back.
    """
    if constraint.mode is GeneMode.OFF:
        return None
    if constraint.mode is GeneMode.AUTO:
        raise ConfigError(
            "sampling.genes.mode must be decided by the task (SamplingConfig.for_task) before "
            "sampling, got 'auto'"
        )
    symbols = vocabulary.symbols
    if constraint.gene_list is not None:
        symbols = read_gene_list(constraint.gene_list, vocabulary)
    if tokenizer.eos_token_id is None:
        raise DataError(f"a policy's tokenizer must have an end token, got {tokenizer.eos_token!r}")

    def encode(texts: list[str]) -> list[list[int]]:
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    trie = GeneTrie.build(
        symbols,
        encode,
        eos_id=int(tokenizer.eos_token_id),
        min_genes=constraint.min_genes,
        max_genes=constraint.max_genes,
    )
    cuts = [symbols[i : i + CHECKED_GENES] for i in range(0, len(symbols), CHECKED_GENES)]
    for cut, ids in zip(cuts, encode([" " + " ".join(cut) for cut in cuts]), strict=True):
        read = str(tokenizer.decode(ids)).split()
        if read != list(cut):
            broken = [pair for pair in zip(cut, read, strict=False) if pair[0] != pair[1]]
            raise DataError(
                "the gene trie needs a tokenizer that reads back every symbol, got "
                f"{(broken[0][1] if broken else read)!r} for {(broken[0][0] if broken else cut)!r}"
            )
    return trie

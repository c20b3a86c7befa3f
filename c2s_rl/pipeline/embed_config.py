"""What is embedded, by which policy, and where the vectors go: the section `embed`.

Nothing heavy is imported: reading a run's file needs no tensors.
"""

from pathlib import Path
from string import Formatter
from typing import Self

from pydantic import Field, field_validator, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.models.encoder_dtype import EncoderDtype

# Names of prompts that need not be written out.
ANNOTATION, SENTENCE = "annotation", "sentence"
CELL_PLACES = frozenset({"cell_sentence", "num_genes", "organism"})
SAMPLE_PLACES = frozenset({"cell_sentences", "num_cells", "num_genes", "organism"})


class SampleConfig(FrozenConfig):
    """Contexts of several cells each."""

    by: tuple[str, ...] = Field(
        min_length=1, description="obs columns whose labels the cells of a sample share"
    )
    cells: int = Field(5, ge=2, description="Cells of a sample")


class IntegrationConfig(FrozenConfig):
    """How well two views of the same samples meet: FOSCTTM of pseudobulks against their partners.

    A pseudobulk is made of cells that share the labels of `by`. Its partner is the bulk profile
    with the same labels, from another folder of cells, or else the mean vector of its own cells.
    """

    by: tuple[str, ...] = Field(
        min_length=1, description="obs columns that make a sample: donor, cell type, batch"
    )
    cells: int = Field(10, ge=1, description="Cells of a pseudobulk, drawn by the seed")
    bulk: Path | None = Field(
        None, description="Cells folder of bulk profiles with the same obs columns, one a sample"
    )
    colour_by: str | None = Field(
        None, description="One of `by` that colours the picture; default: the last"
    )

    @model_validator(mode="after")
    def _colours_by_a_label(self) -> Self:
        if self.colour_by is not None and self.colour_by not in self.by:
            raise ValueError(f"colour_by must be one of {list(self.by)}, got {self.colour_by!r}")
        return self


class EmbedConfig(FrozenConfig):
    """Settings of the stage `embed`."""

    policy: str | None = Field(
        None,
        description="sft, pretrain, base, align or best (the run's own) or a folder; default: what "
        "alignment starts from",
    )
    cells: Path | None = Field(None, description="Cells folder; default: the run's own")
    texts: Path | None = Field(
        None, description="Instead of cells: .jsonl or .tsv with `id`, `text` and labels"
    )
    samples: SampleConfig | None = Field(
        None, description="Embed samples of several cells instead of single ones"
    )
    integration: IntegrationConfig | None = Field(
        None, description="Also compare pseudobulks with bulk samples or with their cells"
    )
    num_genes: int | None = Field(
        None, ge=1, description="Genes of a cell sentence; default: the corpus'"
    )
    prompt: str = Field(
        ANNOTATION,
        description="annotation (the first shipped phrasing), sentence (nothing but the cell), or "
        "a text with {cell_sentence}; for samples with {cell_sentences}",
    )
    labels: tuple[str, ...] | None = Field(
        None, description="obs columns beside the vectors; default: all"
    )
    dtype: EncoderDtype = Field(EncoderDtype.FLOAT32, description="Precision of the model")
    batch_tokens: int = Field(8_192, ge=1, description="Tokens of a forward pass, with padding")
    h5ad: bool = Field(default=True, description="Also write embeddings.h5ad, beside the Parquet")
    into: Path | None = Field(
        None, description=".h5ad of the same cells: a copy of it gets the vectors in obsm"
    )
    key: str = Field("X_c2s", pattern=r"^[\w.-]+$", description="Name of the vectors in obsm")
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds which cells make a pseudobulk")

    @field_validator("prompt")
    @classmethod
    def _is_a_template(cls, prompt: str) -> str:
        if prompt in {ANNOTATION, SENTENCE}:
            return prompt
        try:
            names = {name for _, name, _, _ in Formatter().parse(prompt) if name is not None}
        except ValueError as error:
            raise ValueError(f"braces of a prompt must pair up, got {prompt!r}") from error
        known = CELL_PLACES | SAMPLE_PLACES
        unknown = sorted(names - known)
        if unknown:
            raise ValueError(f"a placeholder must be one of {sorted(known)}, got {unknown[0]!r}")
        if len(names & {"cell_sentence", "cell_sentences"}) != 1:
            raise ValueError(
                f"prompt must be {ANNOTATION}, {SENTENCE} or a text with either {{cell_sentence}} "
                f"or {{cell_sentences}}, got {prompt!r}"
            )
        return prompt

    @model_validator(mode="after")
    def _texts_stand_alone(self) -> Self:
        names = ("cells", "samples", "integration", "num_genes", "labels", "into")
        given = [name for name in names if vars(self)[name] is not None]
        if self.texts is not None and given:
            raise ValueError(f"texts must be given without {given[0]}, got both")
        if self.samples is not None and self.into is not None:
            raise ValueError("into takes vectors of single cells, got samples as well")
        return self

    @model_validator(mode="after")
    def _prompt_fits_the_scope(self) -> Self:
        wanted = "cell_sentences" if self.samples else "cell_sentence"
        is_own = self.prompt not in {ANNOTATION, SENTENCE}
        if is_own and self.texts is None and f"{{{wanted}}}" not in self.prompt:
            raise ValueError(
                f"prompt must hold {{{wanted}}} {'with' if self.samples else 'without'} samples, "
                f"got {self.prompt!r}"
            )
        return self


class EmbedWorkersConfig(FrozenConfig):
    """Ray actors that embed; their number changes nothing but the time."""

    num_workers: int = Field(1, ge=1, description="Workers, one model each")
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a worker reserves")
    num_gpus: float = Field(0.0, ge=0, le=1, description="Ray GPUs a worker reserves; 0: on CPU")
    num_threads: int | None = Field(
        None, ge=1, description="Threads on CPU; default: the cores, divided by the workers"
    )
    deadline_s: float = Field(1800.0, gt=0, description="Longest wait for one shard, seconds")

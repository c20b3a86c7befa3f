"""The config of `convert`: which files, which genes and cells, how to rank, how to work.

Rules between keys are checked here; what the files themselves hold is checked when they are read.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Self

from pydantic import Field, JsonValue, field_validator, model_validator

from c2s_rl.cells.vocabulary import Duplicates, GeneCase
from c2s_rl.config import FrozenConfig
from c2s_rl.data.gene_stats import QcConfig, VariableGenesConfig, require_qc_of_values
from c2s_rl.data.source_config import SourceConfig
from c2s_rl.data.values import Scale, Values
from c2s_rl.errors import ConfigError

DATASET_COLUMN = "dataset"
# What a file of `files` has for itself alone; the rest is taken from the section where it is unset.
OWN_KEYS = ("path", "scanpy_dataset")


class TieBreak(StrEnum):
    """Order of equally expressed genes."""

    HASH = "hash"
    C2S = "c2s"


class RankFormChoice(StrEnum):
    """Form of the rank model; `auto` takes the one with the higher R^2."""

    AUTO = "auto"
    LOG_RANK = "log_rank"
    LINEAR = "linear"


class Join(StrEnum):
    """Which genes several files have together."""

    UNION = "union"
    INTERSECTION = "intersection"


class FileConfig(SourceConfig):
    """One of several files."""

    dataset: str = Field(
        pattern=r"^[\w][\w.-]*$", description="Its name: cell ids become dataset/id"
    )


class WorkersConfig(FrozenConfig):
    """Who converts."""

    num_workers: int | None = Field(
        None,
        ge=1,
        description="Ray workers, one thread each; 1 converts in this process; null: this process "
        "where there are few parts or no cluster is named, else a worker a CPU of the cluster",
    )
    num_cpus: float = Field(1.0, gt=0, description="Ray CPUs that a worker reserves")
    num_threads: int | None = Field(
        None, ge=1, description="Threads of this process; null: as many as it may use CPUs"
    )


class ConvertConfig(SourceConfig):
    """Which cells to convert and how to rank them."""

    files: tuple[FileConfig, ...] = Field(
        (), description="Several files in place of path; what they leave unset is taken from above"
    )
    join: Join = Field(Join.UNION, description="Genes of several files: union or intersection")
    genes: tuple[str, ...] = Field(
        (),
        description="Rank and write these genes only: programs ('hallmark_apoptosis', "
        "'file.gmt:SET') or lists ('genes.txt'), together; empty takes all of the file",
    )
    gene_case: GeneCase = Field(
        GeneCase.KEEP, description="upper: as released C2S models were trained"
    )
    duplicates: Duplicates = Field(
        Duplicates.ERROR, description="Columns of the same symbol: error, sum or first"
    )
    qc: QcConfig | None = Field(None, description="Leave out cells and genes with too little")
    variable_genes: VariableGenesConfig | None = Field(
        None, description="Keep highly variable genes only"
    )
    scale: Scale = Field(default_factory=Scale, description="Library size and logarithm")
    min_genes: int = Field(1, ge=1, description="Leave out cells with fewer expressed genes")
    max_genes: int | None = Field(None, ge=1, description="Keep the first so many genes a cell")
    tie_break: TieBreak = Field(
        TieBreak.HASH, description="c2s: as cell2sentence 1.2.0, depends on the order of cells"
    )
    rank_form: RankFormChoice = Field(RankFormChoice.AUTO, description="Form of the rank model")
    write_values: bool = Field(
        default=True, description="Write expression beside the genes; without, it is by rank model"
    )
    organism: str = Field("Homo sapiens", min_length=1, description="Species, for prompts")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of the order among ties")
    workers: WorkersConfig = Field(default_factory=WorkersConfig, description="Who converts")

    @model_validator(mode="before")
    @classmethod
    def _files_inherit(cls, data: JsonValue) -> JsonValue:
        """Give each file what the section says and it does not."""
        if not isinstance(data, Mapping) or not isinstance(data.get("files"), list | tuple):
            return data
        known = [key for key in SourceConfig.model_fields if key not in OWN_KEYS]
        shared = {key: data[key] for key in known if key in data}
        files = [
            shared | dict(file) if isinstance(file, Mapping) else file for file in data["files"]
        ]
        return {**data, "files": files}

    @field_validator("files")
    @classmethod
    def _files_have_names(cls, files: tuple[FileConfig, ...]) -> tuple[FileConfig, ...]:
        names = [file.dataset for file in files]
        for file in files:
            if names.count(file.dataset) > 1:
                raise ValueError(
                    f"files must have datasets of their own, got {file.dataset!r} twice"
                )
            if DATASET_COLUMN in (*file.obs, *file.combine):
                raise ValueError(
                    f"the obs column {DATASET_COLUMN!r} is made of the names of files, got one of "
                    f"the same name in {file.dataset!r}"
                )
        return files

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        """Take the place of the rule for a single file."""
        given = [self.path is not None, self.scanpy_dataset is not None, bool(self.files)]
        if sum(given) != 1:
            names = ("path", "scanpy_dataset", "files")
            got = " and ".join(n for n, is_given in zip(names, given, strict=True) if is_given)
            raise ValueError(
                f"convert needs one of path, scanpy_dataset or files, got {got or 'none of them'}"
            )
        return self

    @model_validator(mode="after")
    def _parts_of_the_format(self) -> Self:
        """Leave to each file what its format knows."""
        return self if self.files else super()._parts_of_the_format()

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        units = {file.dataset: self.scale.unit(file.values) for file in self.files}
        if len(set(units.values())) > 1:
            shown = ", ".join(f"{unit} of {name!r}" for name, unit in units.items())
            raise ValueError(f"files must be of one unit, got {shown}")
        return self

    @model_validator(mode="after")
    def _qc_knows_its_values(self) -> Self:
        try:
            for source in self.sources:
                if self.qc is not None:
                    require_qc_of_values(self.qc, source.values)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _ties_of_single_columns(self) -> Self:
        if self.tie_break is TieBreak.C2S and self.duplicates is not Duplicates.ERROR:
            raise ValueError(
                "tie_break: c2s shuffles stored columns, so duplicates must be error, "
                f"got {self.duplicates.value}"
            )
        if self.tie_break is TieBreak.C2S and self.genes:
            raise ValueError(
                "tie_break: c2s shuffles all stored columns, so genes must be empty, "
                f"got {list(self.genes)}"
            )
        if self.tie_break is TieBreak.C2S and (self.qc or self.variable_genes):
            raise ValueError(
                "tie_break: c2s shuffles all stored columns of all cells, so qc and variable_genes "
                "must be null, got one of them; filter before, in scanpy"
            )
        return self

    @model_validator(mode="after")
    def _logarithms_are_not_added(self) -> Self:
        for source in self.sources:
            if source.values in (Values.LOG2, Values.RANKS) and self.duplicates is Duplicates.SUM:
                raise ValueError(
                    f"values: {source.values} cannot be added, so duplicates must be error or "
                    "first, got sum"
                )
        return self

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """The files, in order: those of `files`, or the one that `path` names."""
        return self.files or (self,)

"""The one file that describes a run: top-level keys and one section a stage.

Every command reads the same file and uses its own sections. Rules between sections are checked when
the file is read, before any model loads.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue, field_validator, model_validator

from actors.learner_config import LearnerConfig
from actors.placement import PlacementConfig, check_sharing, shares_gpus
from actors.rollout import RolloutConfig
from actors.run_defaults import with_corpus_defaults
from actors.session import RayConfig
from actors.sync_config import SyncConfig, choose_backend
from c2s_rl.config import FrozenConfig, apply_overrides, load_yaml, validate
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.learning_curve import REWARD, REWARD_PREFIX, Checkpoint, is_directed
from c2s_rl.evaluation.metrics import Metric
from c2s_rl.models.cell_embedder import CellEmbedderConfig
from c2s_rl.pipeline.align import AlignConfig
from c2s_rl.pipeline.annotate_config import AnnotateConfig
from c2s_rl.pipeline.base_model import BaseModelConfig
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.pipeline.corpus import CorpusConfig
from c2s_rl.pipeline.embed_config import EmbedConfig, EmbedWorkersConfig
from c2s_rl.pipeline.evaluate import EvaluateConfig
from c2s_rl.pipeline.evaluate_tasks import EvaluateTasksConfig
from c2s_rl.pipeline.evaluate_text import EvaluateTextConfig
from c2s_rl.pipeline.generate_config import GenerateConfig
from c2s_rl.pipeline.pretrain import PretrainConfig
from c2s_rl.pipeline.sft import SftConfig
from c2s_rl.pipeline.train_embedder import EmbedderConfig
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.types import Task
from rewards import reward_class
from rewards.composite import (
    Aggregation,
    Combiner,
    CompositeConfig,
    RewardSpec,
    build_reward,
    is_per_condition,
)
from rewards.pool_config import RewardPoolConfig

# Sections with a seed of their own; the run's seed is theirs unless they name one.
SEEDED = (
    "convert",
    "corpus",
    "embedder",
    "base_model",
    "pretrain",
    "sft",
    "evaluate",
    "evaluate_tasks",
    "evaluate_text",
    "embed",
    "annotate",
    "generate",
)


class RunConfig(FrozenConfig):
    """A whole run, from cells to report."""

    name: str = Field(description="Names the run's folder")
    runs_dir: Path = Field(Path("runs"), description="Where run folders are")
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds every stage that names none itself")
    convert: ConvertConfig | None = Field(None, description="Cells to cell shards")
    corpus: CorpusConfig | None = Field(None, description="Cell shards to prompt shards")
    embedder: EmbedderConfig | None = Field(
        None, description="A small scGPT trained on the run's own training cells"
    )
    base_model: BaseModelConfig | None = Field(None, description="The model training starts from")
    pretrain: PretrainConfig | None = Field(None, description="Pretraining on the corpus")
    sft: SftConfig | None = Field(None, description="Supervised fine-tuning")
    align: AlignConfig | None = Field(None, description="GRPO")
    rewards: tuple[RewardSpec, ...] = Field((), description="What GRPO optimises")
    composite: CompositeConfig = Field(
        default_factory=CompositeConfig, description="How several rewards become one"
    )
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="vLLM workers")
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="DeepSpeed ranks")
    reward_workers: RewardPoolConfig = Field(
        default_factory=RewardPoolConfig,
        description="Workers of each reward that names none of its own",
    )
    sync: SyncConfig = Field(
        default_factory=SyncConfig, description="Weights from learner to rollout workers"
    )
    placement: PlacementConfig = Field(
        default_factory=PlacementConfig, description="Which workers of GRPO share GPUs or cores"
    )
    evaluate: EvaluateConfig | None = Field(None, description="Metrics and report")
    evaluate_tasks: EvaluateTasksConfig | None = Field(
        None, description="Metrics and report of every task, from the untrained model on"
    )
    evaluate_text: EvaluateTextConfig | None = Field(
        None, description="Metrics and report of text answers"
    )
    embed: EmbedConfig | None = Field(None, description="Cells or texts to vectors of a policy")
    embed_workers: EmbedWorkersConfig = Field(
        default_factory=EmbedWorkersConfig, description="Workers that embed"
    )
    annotate: AnnotateConfig | None = Field(None, description="Cells to cell types")
    generate: GenerateConfig | None = Field(None, description="Conditions to cells")
    ray: RayConfig = Field(default_factory=RayConfig, description="Which cluster")

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise ValueError(
                f"name must be letters, digits, '.', '_' or '-' (it names a folder), got {name!r}"
            )
        return name

    @model_validator(mode="after")
    def _align_is_whole(self) -> "RunConfig":
        if self.align is None:
            return self
        if not self.rewards:
            raise ValueError("align needs at least one entry in rewards, got none")
        if self.corpus is not None and self.align.task not in self.corpus.tasks:
            raise ValueError(
                f"align.task must be one of corpus.tasks {[str(t) for t in self.corpus.tasks]}, "
                f"got {str(self.align.task)!r}"
            )
        calibrated = [spec.key for spec in self.rewards if spec.calibrate is not None]
        if calibrated and self.align.task is not Task.PERTURBATION_RESPONSE:
            raise ValueError(
                "calibrate needs prompts with a control cell (align.task perturbation_response), "
                f"got {str(self.align.task)!r} with {', '.join(calibrated)}"
            )
        if self.rollout.dtype != self.learner.dtype:
            raise ValueError(
                "rollout.dtype and learner.dtype must be equal, for published weights keep theirs, "
                f"got {self.rollout.dtype} and {self.learner.dtype}"
            )
        choose_backend(
            self.sync,
            learner_gpus=self.learner.num_gpus,
            rollout_gpus=self.rollout.num_gpus,
            is_colocated=shares_gpus(self.placement, self.rollout, self.learner),
        )
        return self

    @model_validator(mode="after")
    def _workers_fit_together(self) -> "RunConfig":
        check_sharing(self.placement, self.rollout, self.learner)
        if self.align is None:
            return self
        if self.placement.sleep and self.align.streaming:
            raise ValueError(
                "align.streaming must be false with placement.sleep, for engines sleep while the "
                "learner works, got true"
            )
        if self.align.refill_zero_variance and is_per_condition(self.rewards):
            raise ValueError(
                "align.refill_zero_variance must be 0 with rewards that compare all groups of a "
                f"condition, got {self.align.refill_zero_variance}"
            )
        return self

    @model_validator(mode="after")
    def _compares_what_it_has(self) -> "RunConfig":
        if self.align is None:
            return self
        names = self.policy_names
        for place, section in (("evaluate", self.evaluate), ("evaluate_text", self.evaluate_text)):
            for key in () if section is None else ("baseline", "candidate"):
                name = vars(section)[key]
                if name not in names:
                    raise ValueError(f"{place}.{key} must be one of {list(names)}, got {name!r}")
        return self

    @model_validator(mode="after")
    def _compares_trained_models(self) -> "RunConfig":
        section = self.evaluate_tasks
        if section is None:
            return self
        names = self.trained_names
        candidate = section.candidate or names[-1]
        for key, name in (("baseline", section.baseline), ("candidate", candidate)):
            if name not in names:
                raise ValueError(f"evaluate_tasks.{key} must be one of {list(names)}, got {name!r}")
        if section.baseline == candidate and len(names) > 1:
            raise ValueError(
                "evaluate_tasks.baseline must be another model than the candidate, which is the "
                f"last one trained where none is named, got {candidate!r}"
            )
        return self

    @model_validator(mode="after")
    def _chooses_by_what_it_has(self) -> "RunConfig":
        watched = self.align.evaluation if self.align else None
        wants_best = self.evaluate and self.evaluate.candidate_checkpoint is Checkpoint.BEST
        if wants_best and watched is None:
            raise ValueError(
                "evaluate.candidate_checkpoint must be last without align.evaluation, which "
                "chooses the best, got best"
            )
        has_cells = self.align is not None and TASK_RULES[self.align.task].is_cell_sentence
        metrics = [metric.value for metric in Metric if has_cells and is_directed(metric.value)]
        rewards = [f"{REWARD_PREFIX}{spec.key}" for spec in self.rewards]
        # a total of other weights, or centred within each group, is not the same at every step
        is_sum = self.composite.aggregation is Aggregation.SUM_THEN_NORMALISE
        if is_sum and not any(spec.schedule for spec in self.rewards):
            rewards.insert(0, REWARD)
        if watched is not None and watched.metric not in metrics + rewards:
            raise ValueError(
                f"align.evaluation.metric must be one of {', '.join(metrics + rewards)}, "
                f"got {watched.metric!r}"
            )
        return self

    @property
    def policy_names(self) -> tuple[str, ...]:
        """Policies that are evaluated: what alignment starts from and, if there is one, its end."""
        start = "SFT" if self.sft else "Pretrained" if self.pretrain else "Base"
        return (start, *(["GRPO"] if self.align else []))

    @property
    def trained_names(self) -> tuple[str, ...]:
        """Every model of the run, the untrained one first."""
        sections = (("Pretrained", self.pretrain), ("SFT", self.sft), ("GRPO", self.align))
        return ("Base", *(name for name, section in sections if section is not None))

    @property
    def reward_pools(self) -> tuple[RewardPoolConfig, ...]:
        """Workers of each reward."""
        return tuple(spec.workers or self.reward_workers for spec in self.rewards)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs_dir / self.name


def load_run(path: Path, overrides: Sequence[str]) -> RunConfig:
    """Read a run's file and apply `--set` overrides.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If a key is unknown, a value breaks a rule, or a reward cannot be built.
    """
    data = apply_overrides(load_yaml(path), overrides)
    run = validate(RunConfig, with_corpus_defaults(_with_program(_with_seed(data))), str(path))
    if run.rewards:
        Combiner(run.rewards, run.composite)
    for spec in run.rewards:
        try:
            build_reward(spec)
        except ConfigError as error:
            raise ConfigError(f"{error} at 'rewards' in {path}") from error
    _check_own_embedder(run, path)
    return run


def _check_own_embedder(run: RunConfig, path: Path) -> None:
    """Check that whoever embeds with the run's own scGPT finds one trained."""
    sections: dict[str, BaseModel | None] = {
        f"rewards.{spec.key}": reward_class(spec.name).Options.model_validate(spec.options)
        for spec in run.rewards
    }
    for place, section in (sections | {"evaluate": run.evaluate}).items():
        if run.embedder is None and any(e.uses_own for e in _embedders_in(section)):
            raise ConfigError(
                "an embedder of kind scgpt must name its folder, or the run must train one "
                f"(section embedder), got neither for {place!r} in {path}"
            )


def _embedders_in(value: object) -> Iterator[CellEmbedderConfig]:
    """Find the embedders of a section and of the sections and lists in it."""
    if isinstance(value, CellEmbedderConfig):
        yield value
    elif isinstance(value, BaseModel):
        yield from _embedders_in(tuple(vars(value).values()))
    elif isinstance(value, tuple):
        for part in value:
            yield from _embedders_in(part)


def _with_seed(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    seed = data.get("seed", RunConfig.model_fields["seed"].default)
    result = dict(data)
    for name in SEEDED:
        section = result.get(name)
        if isinstance(section, dict):
            result[name] = {"seed": seed} | section
    return result


def _with_program(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Let evaluation during training measure what the final one does, where it names nothing."""
    align, final = data.get("align"), data.get("evaluate")
    if not isinstance(align, dict) or not isinstance(final, dict):
        return data
    during = align.get("evaluation")
    if not isinstance(during, dict):
        return data
    same = {key: final[key] for key in ("program", "variant") if key in final}
    return data | {"align": align | {"evaluation": same | during}}

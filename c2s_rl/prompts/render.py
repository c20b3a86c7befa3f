"""Template files in, prompt texts out; the wording is drawn by (seed, prompt id).

The joining rule, which everything downstream relies on:
- a prompt ends without whitespace, a target starts with exactly one space;
- the policy sees prompt + target + end-of-sequence;
- prompt and target are tokenised apart and their ids concatenated, so that the prompt's ids are
  the same in training and in sampling.

Left out: tokenising (no tensors here) and the choice of cells (`c2s_rl.data.prompt_set`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter

from pydantic import Field, JsonValue, field_validator

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.config import FrozenConfig, load_yaml, parse_yaml, validate
from c2s_rl.errors import ConfigError
from c2s_rl.prompts.tasks import TASK_RULES, PromptFacts
from c2s_rl.types import Task


class TemplateFile(FrozenConfig):
    """What a template file holds."""

    task: Task = Field(description="The task that these prompts set.")
    prompts: tuple[str, ...] = Field(
        min_length=1, description="Phrasings; {placeholders} as c2s_rl/prompts/tasks.py lists them."
    )

    @field_validator("prompts")
    @classmethod
    def _strip(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        """Drop the line break that YAML block texts end with: the joining rule forbids it."""
        stripped = tuple(prompt.strip() for prompt in prompts)
        if not all(stripped):
            raise ValueError(f"a prompt template must hold text, got {list(prompts)}")
        repeated = [p for p in dict.fromkeys(stripped) if stripped.count(p) > 1]
        if repeated:
            raise ValueError(f"prompt templates must differ, got {repeated[0]!r} twice")
        return stripped


@dataclass(frozen=True)
class TemplateSet:
    """The checked phrasings of one task."""

    task: Task
    """The task that they set."""
    prompts: tuple[str, ...]
    """Phrasings in file order, without whitespace at either end."""
    source: str
    """The file, for messages and manifests."""

    def render(self, facts: PromptFacts, *, prompt_id: str, seed: int) -> str:
        """Fill one phrasing with the facts.

        Args:
            facts: What the placeholders stand for.
            prompt_id: Key of the draw: the same id and seed give the same phrasing, whatever
                other prompts there are.
            seed: Seed of the corpus.

        Returns:
            The prompt, without whitespace at its end.
        """
        pick = stable_hash(f"phrasing|{self.task}|{prompt_id}", seed) % len(self.prompts)
        return self.prompts[pick].format_map(facts.as_words()).rstrip()


def render_target(text: str) -> str:
    """Turn an answer into a target that joins its prompt: exactly one space in front."""
    return " " + text.strip()


def load_templates(task: Task, path: Path | None = None) -> TemplateSet:
    """Read and check the phrasings of a task.

    Args:
        task: The task.
        path: A template file of the user's own; None takes the shipped one.

    Raises:
        MissingFileError: If `path` does not exist.
        ConfigError: If the file belongs to another task, or a phrasing uses an unknown
            placeholder or lacks a required one.
    """
    if path is None:
        shipped = files("c2s_rl.prompts") / "templates" / f"{task}.yaml"
        source = f"{task}.yaml (shipped)"
        data = parse_yaml(shipped.read_text(encoding="utf-8"), source)
    else:
        source = str(path)
        data = _as_json(load_yaml(path))
    content = validate(TemplateFile, data, source)
    if content.task is not task:
        raise ConfigError(f"a template file for {task} must set it, got {content.task} in {source}")
    for prompt in content.prompts:
        _check_placeholders(task, prompt, source)
    return TemplateSet(task, content.prompts, source)


def load_all_templates(
    tasks: tuple[Task, ...], paths: Mapping[Task, Path]
) -> dict[Task, TemplateSet]:
    """Read the templates of several tasks, the user's own file where `paths` names one."""
    return {task: load_templates(task, paths.get(task)) for task in tasks}


def _as_json(data: dict[str, JsonValue]) -> JsonValue:
    return dict(data)


def _check_placeholders(task: Task, prompt: str, source: str) -> None:
    rule = TASK_RULES[task]
    where = f"{prompt!r} in {source}"
    names = set(_placeholders(prompt, where))
    unknown = sorted(names - rule.allowed)
    if unknown:
        raise ConfigError(
            f"a placeholder of {task} must be one of {sorted(rule.allowed)}, "
            f"got {{{unknown[0]}}} in {where}"
        )
    missing = sorted(rule.required - names)
    if missing:
        raise ConfigError(f"a template of {task} must hold {{{missing[0]}}}, got {where}")


def _placeholders(prompt: str, where: str) -> list[str]:
    """List the placeholder names of a template; only plain '{name}' is allowed."""
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        raise ConfigError(
            f"braces of a template must pair up ('{{{{' for a literal one), got {where}"
        ) from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion):
            raise ConfigError(f"a placeholder must be a plain {{name}}, got {{{name}}} in {where}")
    return [name for _, name, _, _ in parts if name is not None]

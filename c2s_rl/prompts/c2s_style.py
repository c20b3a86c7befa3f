"""The prompts of the cell2sentence package, for models that were trained with it.

The phrasings are read from the *installed* package when they are asked for (its licence is CC
BY-NC-ND, so none of them is here): what the user's version says is what the user's model was
trained on. The package is a development dependency; without it only this style is missing. Left
out: tasks that the package has no prompts for, unconditional generation among them.

The package's tokenisation puts one space between prompt and response, as this project does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from c2s_rl.cells.rank import stable_hash
from c2s_rl.errors import ConfigError, DataError, MissingFileError

PACKAGE = "cell2sentence"

# Task, as this project calls it, to the package's template file (cell2sentence 1.2.0).
TEMPLATE_FILES: Mapping[str, str] = MappingProxyType(
    {
        "cell_type_annotation": "single_cell_cell_type_prediction_prompts.json",
        "cell_generation": "single_cell_cell_type_conditional_generation_prompts.json",
        "tissue_annotation": "multi_cell_tissue_prediction_prompts.json",
        "tissue_sample_generation": "multi_cell_tissue_conditional_generation.json",
        "natural_language_interpretation": "multi_cell_natural_lang_interpretation_prompts.json",
    }
)


@dataclass(frozen=True)
class C2SPrompt:
    """One sample in the package's words."""

    prompt: str
    """What the package calls model_input; a few of its phrasings end in a line break."""
    response: str
    """The answer; the package ends it with a full stop."""


@dataclass(frozen=True)
class C2SStyle:
    """The package's phrasings of one task."""

    task: str
    """The task, as this project calls it."""
    prompts: tuple[str, ...]
    """Phrasings in the order of the package's file, with {placeholders}."""
    response: str
    """The form of the answer."""
    source: str
    """The package's file, for messages and manifests."""

    def pick(self, prompt_id: str, seed: int) -> int:
        """Draw a phrasing by id and seed; the package draws from a global generator instead."""
        return stable_hash(f"phrasing|{self.task}|{prompt_id}", seed) % len(self.prompts)

    def render(self, facts: Mapping[str, str | int], *, choice: int) -> C2SPrompt:
        """Fill one phrasing, equal to what the package's prompt formatters make of it.

        Args:
            facts: Placeholder to its text; more may be given than are used. The package has
                num_genes (asked for, even where a sentence is shorter), organism, cell_sentence,
                cell_type, num_cells, multi_cell_sentences (`multi_cell_text`), tissue, abstract.
            choice: Number of the phrasing.

        Raises:
            ConfigError: If a placeholder of the phrasing is not among the facts.
        """
        try:
            return C2SPrompt(
                self.prompts[choice].format_map(facts), self.response.format_map(facts)
            )
        except KeyError as error:
            raise ConfigError(
                f"the prompts of {PACKAGE} for {self.task} need {error.args[0]}, "
                f"got only {', '.join(facts)}"
            ) from error


def load_c2s_style(task: str) -> C2SStyle:
    """Read the phrasings of a task from the installed package, without importing it.

    Args:
        task: A `Task` or its name.

    Raises:
        ConfigError: If the package has no prompts for the task.
        MissingFileError: If the package is not installed or lacks the file.
        DataError: If the file does not hold phrasings.
    """
    if task not in TEMPLATE_FILES:
        raise ConfigError(
            f"style: {PACKAGE} has prompts for {', '.join(TEMPLATE_FILES)} only, got {task!s}; "
            "leave this task out or use style: c2s_rl"
        )
    path = _package_folder() / "prompts" / TEMPLATE_FILES[task]
    if not path.is_file():
        raise MissingFileError(f"the installed {PACKAGE} must hold its prompts, got no {path}")
    content = json.loads(path.read_text(encoding="utf-8"))
    prompts, responses = _texts(content, "model_input", path), _texts(content, "response", path)
    return C2SStyle(str(task), prompts, responses[0], f"{PACKAGE}/prompts/{path.name}")


def multi_cell_text(sentences: Sequence[str]) -> str:
    """Write several cells as the package does: numbered, a full stop after each sentence."""
    return "".join(f"Cell {number}:\n{text}.\n" for number, text in enumerate(sentences, start=1))


def _package_folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingFileError(
            f"style: {PACKAGE} reads the prompts of the installed package {PACKAGE}, got none; "
            f"install it (pip install --no-deps {PACKAGE}==1.2.0) or use style: c2s_rl"
        )
    return Path(spec.submodule_search_locations[0])


def _texts(content: object, key: str, path: Path) -> tuple[str, ...]:
    texts = content.get(key) if isinstance(content, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise DataError(
            f"{key} of {PACKAGE}'s prompts must be a list of texts, got others in {path}"
        )
    return tuple(texts)

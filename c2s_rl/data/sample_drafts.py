"""Tasks about a sample of cells: of one donor, tissue, study, treatment and side of the split.

Source: C2S-Scale (bioRxiv 2025.04.14.648850), Table 1: multi-cell samples draw cells of the same
donor and tissue label. Cells that were treated alike are kept together here as well, since no
biopsy holds both; a prompt that names tissue or cell types and no perturbation asks for untreated
samples, as cell generation does. Left out: reading abstracts from a file (`abstracts.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.data.abstracts import study_abstracts
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.corpus_sections import ABSTRACT_TASKS, MultiCellConfig
from c2s_rl.data.drafts import Draft, Drafted, Material
from c2s_rl.data.labels import LabelledCell
from c2s_rl.errors import ConfigError
from c2s_rl.types import Split, Task

UNTREATED_ONLY = (Task.TISSUE_SAMPLE_GENERATION, Task.CELL_TYPE_SAMPLE_GENERATION)
ALL_CELLS = "all cells"  # condition where neither tissue nor study is known


@dataclass(frozen=True, order=True)
class SampleGroup:
    """What the cells of one sample share."""

    dataset: str
    tissue: str
    donor: str
    abstract: str
    """Text about the study; '' without one."""
    perturbation: str
    exposure: str
    split: Split

    @property
    def name(self) -> str:
        """Name of the group, for ids; a study without a name is told by a hash of its text."""
        study = self.dataset or (f"{stable_hash(self.abstract, 0):016x}" if self.abstract else "")
        parts = (study, self.tissue, self.donor, self.perturbation, self.exposure)
        return " | ".join(part for part in (*parts, self.split) if part)

    def condition(self, task: Task) -> str:
        """Name what results are shown by: the study for abstracts, else tissue and treatment."""
        if task in ABSTRACT_TASKS and self.dataset:
            return self.dataset
        parts = (self.tissue, self.perturbation, self.exposure)
        return " | ".join(part for part in parts if part) or ALL_CELLS


def draft_samples(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Draw the samples of a task from every group of cells.

    Cells without a label of `multi_cell`'s columns are counted as 'no_<label>', treated cells that
    the task does not ask for as 'not_control', and samples of groups that are too small as
    'too_few_cells_for_sample'.

    Raises:
        MissingFileError: If there is no file of abstracts.
        DataError: If it lacks the study of a cell.
    """
    settings = config.multi_cell
    if settings is None:
        raise ConfigError(f"{task} needs section multi_cell, got None")
    dropped: Counter[str] = Counter()
    groups = group_cells(material, task, config, settings, dropped)
    drafts: list[Draft] = []
    least, most = settings.cells_per_sample
    for group, cells in sorted(groups.items()):
        if len(cells) < least:
            dropped["too_few_cells_for_sample"] += settings.samples_per_group
            continue
        for draw in range(settings.samples_per_group):
            key = f"sample|{task}|{group.name}|{draw}"
            generator = np.random.default_rng(stable_hash(key, config.seed))
            num = int(generator.integers(least, min(most, len(cells)) + 1))
            picks = generator.choice(len(cells), size=num, replace=False).tolist()
            drafts.append(_draft(task, group, draw, tuple(cells[pick] for pick in picks)))
    return Drafted(drafts, dropped)


def group_cells(
    material: Material,
    task: Task,
    config: CorpusConfig,
    settings: MultiCellConfig,
    dropped: Counter[str],
) -> Mapping[SampleGroup, Sequence[LabelledCell]]:
    """Put the cells that may stand in one sample together, in order of their ids."""
    abstracts = study_abstracts(material, settings) if task in ABSTRACT_TASKS else {}
    donor_column = settings.donor_column or config.donor_column
    groups: defaultdict[SampleGroup, list[LabelledCell]] = defaultdict(list)
    for cell in material.cells:
        if task in UNTREATED_ONLY and not cell.is_control:
            dropped["not_control"] += 1
            continue
        dataset = material.value(cell, settings.dataset_column)
        labels = {
            "dataset": (settings.dataset_column, dataset),
            "donor": (donor_column, material.value(cell, donor_column)),
            "tissue": (settings.tissue_column, material.value(cell, settings.tissue_column)),
        }
        if task in ABSTRACT_TASKS:
            text = (
                abstracts[dataset]
                if settings.abstracts is not None
                else " ".join(material.value(cell, settings.abstract_column).split())
            )
            labels["abstract"] = ("abstract", text)
        missing = [name for name, (column, value) in labels.items() if column and not value]
        if missing:
            dropped[f"no_{missing[0]}"] += 1
            continue
        group = SampleGroup(
            dataset=dataset,
            tissue=labels["tissue"][1],
            donor=labels["donor"][1],
            abstract=labels["abstract"][1] if "abstract" in labels else "",
            perturbation=cell.perturbation,
            exposure=cell.exposure,
            split=cell.split,
        )
        groups[group].append(cell)
    return groups


def _draft(task: Task, group: SampleGroup, draw: int, cells: tuple[LabelledCell, ...]) -> Draft:
    types = tuple(cell.cell_type for cell in cells)
    is_shown = task in (
        Task.TISSUE_ANNOTATION,
        Task.SAMPLE_CELL_TYPE_ANNOTATION,
        Task.NATURAL_LANGUAGE_INTERPRETATION,
    )
    answers = {
        Task.TISSUE_ANNOTATION: group.tissue,
        Task.NATURAL_LANGUAGE_INTERPRETATION: group.abstract,
    }
    words: dict[str, str] = {}
    if task is Task.TISSUE_SAMPLE_GENERATION:
        words["tissue"] = group.tissue
    if task is Task.ABSTRACT_SAMPLE_GENERATION:
        words["abstract"] = group.abstract
    return Draft(
        prompt_id=f"{task}/{group.name}/{draw}",
        task=task,
        condition=group.condition(task),
        split=group.split,
        shown=cells if is_shown else (),
        answers=() if is_shown else cells,
        words=words,
        lines={"cell_types": types} if task is Task.CELL_TYPE_SAMPLE_GENERATION else {},
        answer=answers.get(task, ""),
        answer_lines=types if task is Task.SAMPLE_CELL_TYPE_ANNOTATION else (),
        is_sample=True,
    )

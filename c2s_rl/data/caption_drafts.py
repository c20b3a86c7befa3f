"""Tasks that put cells into words: a caption of a cluster, a summary of a study.

    cluster_captioning      cells of one cluster -> a caption of it
    dataset_interpretation  cells of one tissue, donor and study -> a summary of the study

Where a cluster or study has several texts, one is drawn for each prompt. Source: C2S-Scale, section
4.6. Left out: the pretraining task with a study's one abstract (`sample_drafts.py`).
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.drafts import Draft, Drafted, Material
from c2s_rl.data.labels import LabelledCell
from c2s_rl.data.sample_drafts import group_cells
from c2s_rl.data.text_table import TextColumns, read_texts
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.types import Split, Task

CAPTIONS = TextColumns("cluster", "caption", "a table of captions")
SUMMARIES = TextColumns("study", "summary", "a table of summaries")

log = logging.getLogger(__name__)


def draft_captions(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Draw cells of every captioned cluster, on each side of the split.

    Left out and counted: 'no_cluster' and 'no_caption' (cells), 'captions_without_cells'
    (clusters), 'too_few_cells_for_caption' (prompts).

    Raises:
        MissingFileError: If there is no table of captions.
        DataError: If a row of it breaks a rule, or no cluster of the cells has a caption.
    """
    settings = config.captions
    if settings is None:
        raise ConfigError(f"{task} needs section captions, got None")
    dropped: Counter[str] = Counter()
    captions = read_texts(settings.path, CAPTIONS)
    pools: defaultdict[tuple[str, Split], list[LabelledCell]] = defaultdict(list)
    clusters: set[str] = set()
    for cell in material.cells:
        cluster = material.value(cell, settings.cluster_column)
        clusters.add(cluster)
        if cluster in captions:
            pools[cluster, cell.split].append(cell)
        else:
            dropped["no_caption" if cluster else "no_cluster"] += 1
    _check_clusters(captions, clusters - {""}, settings.cluster_column, dropped)
    num = settings.cells_per_caption
    drafts: list[Draft] = []
    for (cluster, side), pool in sorted(pools.items()):
        if len(pool) < num:
            dropped["too_few_cells_for_caption"] += settings.draws
            continue
        for draw in range(settings.draws):
            generator = np.random.default_rng(
                stable_hash(f"caption|{cluster}|{side}|{draw}", config.seed)
            )
            picks = generator.choice(len(pool), size=num, replace=False).tolist()
            drafts.append(
                Draft(
                    prompt_id=f"{task}/{cluster}/{side}/{draw}",
                    task=task,
                    condition=cluster,
                    split=side,
                    shown=tuple(pool[pick] for pick in picks),
                    answer=captions[cluster][int(generator.integers(len(captions[cluster])))],
                )
            )
    return Drafted(drafts, dropped)


def _check_clusters(
    captions: Mapping[str, Sequence[str]],
    clusters: set[str],
    column: str,
    dropped: Counter[str],
) -> None:
    """Count the captions of clusters that no cell is of; all of them are an error."""
    unused = sorted(captions.keys() - clusters)
    dropped["captions_without_cells"] += len(unused)
    if len(unused) == len(captions):
        known = sorted(clusters)
        raise DataError(unknown_name(f"a cluster of obs {column}", unused[0], known, CAPTIONS.what))
    if unused:
        log.warning("captions of clusters that no cell of obs %s is of: %s", column, shown(unused))


def draft_interpretations(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Draw samples of every study, tissue and donor, as `multi_cell` says.

    Counters are those of the other samples (`sample_drafts.py`).

    Raises:
        MissingFileError: If there is no table of summaries.
        DataError: If it lacks the study of a cell, or holds several and cells name none.
    """
    settings, samples = config.interpretations, config.multi_cell
    if settings is None or samples is None:
        raise ConfigError(f"{task} needs sections interpretations and multi_cell, got None")
    summaries = read_texts(settings.path, SUMMARIES)
    if samples.dataset_column is None:
        if len(summaries) > 1:
            raise DataError(
                "summaries of several studies need multi_cell.dataset_column, got "
                f"{shown(sorted(summaries))} in {settings.path} and no such column"
            )
        summaries = {"": next(iter(summaries.values()))}
    dropped: Counter[str] = Counter()
    groups = group_cells(material, task, config, samples, dropped)
    least, most = samples.cells_per_sample
    drafts: list[Draft] = []
    for group, cells in sorted(groups.items()):
        if group.dataset not in summaries:
            what = f"a study of obs {samples.dataset_column}"
            raise DataError(
                unknown_name(what, group.dataset, sorted(summaries), str(settings.path))
            )
        if len(cells) < least:
            dropped["too_few_cells_for_sample"] += samples.samples_per_group
            continue
        texts = summaries[group.dataset]
        for draw in range(samples.samples_per_group):
            key = f"sample|{task}|{group.name}|{draw}"
            generator = np.random.default_rng(stable_hash(key, config.seed))
            num = int(generator.integers(least, min(most, len(cells)) + 1))
            picks = generator.choice(len(cells), size=num, replace=False).tolist()
            drafts.append(
                Draft(
                    prompt_id=f"{task}/{group.name}/{draw}",
                    task=task,
                    condition=group.dataset or group.condition(task),
                    split=group.split,
                    shown=tuple(cells[pick] for pick in picks),
                    answer=texts[int(generator.integers(len(texts)))],
                    is_sample=True,
                )
            )
    return Drafted(drafts, dropped)

"""Stage corpus: cell shards in, prompt shards out.

    c2s-rl corpus --config FILE

Left out: making cells (stage `convert`) and tokenising (stages `base-model`, `sft`, `align`).
"""

import logging
from pathlib import Path

import c2s_rl.data.shards as cell_shards
from c2s_rl.checkpoint import MANIFEST, atomic_folder, require_replaceable, sha256_of
from c2s_rl.data.corpus import CellSource, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig, PromptLimits, TargetForm
from c2s_rl.data.prompt_set import PromptManifest, write_prompts
from c2s_rl.data.qa_file import questions_file
from c2s_rl.data.split_config import SplitConfig
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import Split

__all__ = ["CorpusConfig", "PromptLimits", "SplitConfig", "TargetForm", "run"]

log = logging.getLogger(__name__)


def run(config: CorpusConfig, cells: Path, output: Path) -> PromptManifest:
    """Write the prompt shards of a folder of cell shards.

    Args:
        config: What to make.
        cells: What the stage `convert` wrote.
        output: Folder to write; put in place as a whole at the end, an older one is replaced.

    Returns:
        The manifest as written.

    Raises:
        MissingFileError: If there are no cells, or no file of questions or templates as named.
        ConfigError: If a template breaks a rule.
        DataError: If the cells lack what the config names, or the split leaks.
        StageError: If `output` holds something that no stage wrote.
    """
    require_replaceable(output)
    templates = load_all_templates(config.tasks, config.templates)
    cell_manifest = cell_shards.read_manifest(cells)
    source = CellSource(
        table=cell_shards.read_cells(cells, config.obs_columns),
        vocabulary=cell_manifest.vocabulary,
        organism=cell_manifest.organism,
        seed=cell_manifest.seed,
    )
    corpus = build_corpus(source, config, templates)
    manifest = PromptManifest(
        organism=cell_manifest.organism,
        num_genes=config.num_genes,
        seed=config.seed,
        counts=corpus.counts,
        dropped=corpus.dropped,
        num_short_targets=corpus.num_short_targets,
        cells_manifest_sha256=sha256_of(cells / MANIFEST),
        qa_sha256="" if config.qa is None else sha256_of(questions_file(config.qa.path)),
        config=config.model_dump(mode="json"),
        phrasings={task: templates[task].prompts for task in config.tasks},
        symbols=source.vocabulary.symbols,
        original=source.vocabulary.original,
    )
    with atomic_folder(output) as folder:
        write_prompts(folder, corpus.records, manifest)
    log.info(
        "corpus: %d training and %d test prompts, %d conditions",
        manifest.num_prompts(Split.TRAIN),
        manifest.num_prompts(Split.TEST),
        len({count.condition for count in corpus.counts}),
    )
    return manifest

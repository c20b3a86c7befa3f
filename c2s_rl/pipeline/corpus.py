"""Stage corpus: cell shards in, prompt shards out.

    c2s-rl corpus --config FILE

Left out: making cells (stage `convert`) and tokenising (stages `base-model`, `sft`, `align`).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from c2s_rl.checkpoint import MANIFEST, atomic_folder, require_replaceable, sha256_of
from c2s_rl.config import expand_variables
from c2s_rl.data.cell_source import ShardSource
from c2s_rl.data.corpus import Tally, all_dropped, count_conditions, iter_records, plan_corpus
from c2s_rl.data.corpus_config import CorpusConfig, PromptLimits, PromptStyle, TargetForm
from c2s_rl.data.gene_set_drafts import gene_set_files
from c2s_rl.data.prompt_set import PromptManifest, write_manifest, write_shards
from c2s_rl.data.split_config import SplitConfig
from c2s_rl.data.token_budget import TokenCounter
from c2s_rl.data.wording import TemplateWording, Wording, c2s_wording
from c2s_rl.errors import DataError, MissingFileError
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
    source = ShardSource(cells, config.obs_columns)
    wording = make_wording(config, source.organism)
    counter = token_counter(config)
    plan, tally = plan_corpus(source, config), Tally()
    with atomic_folder(output) as folder:
        write_shards(folder, iter_records(plan, source, config, wording, counter, tally))
        manifest = PromptManifest(
            organism=source.organism,
            num_genes=config.num_genes,
            seed=config.seed,
            counts=count_conditions(plan, tally),
            held_out_conditions=plan.held_out_conditions,
            dropped=all_dropped(plan, tally, config),
            num_shortened={task: num for task, num in sorted(tally.num_shortened.items()) if num},
            num_short_targets=tally.num_short_targets,
            cells_manifest_sha256=sha256_of(cells / MANIFEST),
            sources_sha256={name: text for name, text in source_hashes(config).items() if text},
            config=config.model_dump(mode="json"),
            phrasings=wording.phrasings,
            symbols=source.vocabulary.symbols,
            original=source.vocabulary.original,
        )
        write_manifest(folder, manifest)
    log.info(
        "corpus: %d training and %d test prompts, %d conditions",
        manifest.num_prompts(Split.TRAIN),
        manifest.num_prompts(Split.TEST),
        len({count.condition for count in manifest.counts}),
    )
    return manifest


def make_wording(config: CorpusConfig, organism: str) -> Wording:
    """Load the phrasings of every task, in the style that the config asks for.

    Raises:
        MissingFileError: If there is no template file as named, or no cell2sentence package.
        ConfigError: If a template breaks a rule, or the package lacks a task.
    """
    if config.style is PromptStyle.CELL2SENTENCE:
        return c2s_wording(config.tasks, organism=organism, seed=config.seed)
    templates = load_all_templates(config.tasks, config.templates)
    return TemplateWording(templates, organism, config.seed)


def token_counter(config: CorpusConfig) -> TokenCounter | None:
    """Load the tokenizer that the token budget names, to count with; None where it names none.

    Raises:
        MissingFileError: If there is no such folder.
        DataError: If it holds no tokenizer.
    """
    budget = config.token_budget
    if budget is None or budget.tokenizer is None:
        return None
    from transformers import AutoTokenizer  # heavy: only where token counts are asked for

    folder = Path(expand_variables(str(budget.tokenizer)))
    if not folder.is_dir():
        raise MissingFileError(f"token_budget.tokenizer must be a folder, got {folder}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"a tokenizer folder must load, got {reason} in {folder}") from error

    def count(texts: Sequence[str]) -> list[int]:
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [len(one) for one in ids]

    return count


def _source_files(config: CorpusConfig) -> list[Path]:
    """List the files beside the cells that the corpus is made of."""
    files = [Path(expand_variables(str(path))) for path in config.templates.values()]
    if config.qa is not None:
        files.append(Path(expand_variables(str(config.qa.path))))
    if config.multi_cell is not None and config.multi_cell.abstracts is not None:
        files.append(Path(expand_variables(str(config.multi_cell.abstracts))))
    if config.gene_sets is not None:
        files += gene_set_files(config.gene_sets)
    for section in (config.gene_interactions, config.captions, config.interpretations):
        if section is not None:
            files.append(Path(expand_variables(str(section.path))))
    return files


def source_hashes(config: CorpusConfig) -> dict[str, str | None]:
    """Return the SHA-256 of each file beside the cells that a corpus is made of, by its name.

    Namesakes of other folders are told apart by a number; None stands for a file that is not there.

    Raises:
        ConfigError: If a path names an environment variable that is not set.
    """
    hashes: dict[str, str | None] = {}
    for file in _source_files(config):
        same = sum(name.split(" (")[0] == file.name for name in hashes)
        name = f"{file.name} ({same + 1})" if same else file.name
        hashes[name] = sha256_of(file) if file.is_file() else None
    return hashes

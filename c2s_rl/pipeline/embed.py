"""Stage embed: cells, samples of cells or texts in, a policy's vectors out.

    c2s-rl embed --config FILE        (section `embed`)

    embed/part-*.parquet     vectors with ids and labels
    embed/embeddings.h5ad    the same as AnnData: obs, obsm['X_c2s']
    embed/<file>.h5ad        a copy of the user's file with the vectors in obsm (option `into`)
    embed/integration.json   FOSCTTM of pseudobulks and their partners, with a page of pictures

A vector is the mean of the policy's last hidden states over the context's own tokens
(`c2s_rl/models/policy_embedder.py`), prompt included. Work is done and resumed by shard. Left out:
running shards on several machines, which is `actors/embed_job.py`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from c2s_rl.checkpoint import MANIFEST, replace_text, sha256_of
from c2s_rl.data.cell_groups import sample_rows
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.h5ad_copy import require_other_name
from c2s_rl.errors import ConfigError
from c2s_rl.models.policy_embedder import LAYER, POOLING
from c2s_rl.pipeline import resumable
from c2s_rl.pipeline.embed_config import EmbedConfig, EmbedWorkersConfig, IntegrationConfig
from c2s_rl.pipeline.embed_contexts import (
    CellSamples,
    CellWording,
    ContextSource,
    SingleCells,
    template_of,
)
from c2s_rl.pipeline.embed_output import require_into, write_embeddings, write_into
from c2s_rl.pipeline.embed_shards import (
    EmbedJob,
    Execute,
    pending,
    read_vectors,
    require_free_names,
)
from c2s_rl.pipeline.embed_texts import read_texts
from c2s_rl.pipeline.integration import (
    Compared,
    IntegrationResult,
    Views,
    compare_views,
    make_views,
)
from c2s_rl.pipeline.policy_files import policy_sha256

__all__ = ["EmbedConfig", "EmbedFolders", "EmbedWorkersConfig", "run"]

EMBEDDINGS, INTEGRATION, INTEGRATION_PAGE = (
    "embeddings.h5ad",
    "integration.json",
    "integration.html",
)
OnProgress = Callable[[int, int], None]
"""Called with the contexts that are done and those of the whole stage."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedFolders:
    """Where a stage reads and writes; absolute, for workers run elsewhere."""

    policy: Path
    """Hugging Face folder."""
    cells: Path
    """Cells folder; not read where texts are embedded."""
    output: Path
    """Folder of the vectors."""


def run(
    config: EmbedConfig,
    folders: EmbedFolders,
    execute: Execute,
    *,
    on_progress: OnProgress = lambda _done, _total: None,
) -> IntegrationResult | None:
    """Embed what the config names; shards that are there already are kept.

    Args:
        config: With `num_genes` decided, unless texts are embedded.
        folders: Inputs and output.
        execute: Runs shards, see `embed_shards.Execute`.
        on_progress: For progress bars.

    Returns:
        How well pseudobulks meet their partners, where that was asked for.

    Raises:
        ConfigError: If `num_genes` is not given and not known.
        MissingFileError: If policy, cells, texts or the file of `into` are not there.
        DataError: If a column is unknown, a context does not fit the model, or files are damaged.
        StageError: If the output was begun from something else.
    """
    if config.into is not None:
        require_other_name(config.into, EMBEDDINGS)
    source, left_out = _source(config, folders)
    require_free_names(source.label_names)
    plan = _plan(config, folders)
    output = folders.output
    if config.into is not None and not resumable.is_finished(output):
        require_into(config.into, CellReader(folders.cells), key=config.key)
    if not resumable.begin(output, plan):
        return _finished(output)
    job = EmbedJob(folders.policy, config.dtype, config.batch_tokens, source, output)
    views = None
    jobs = [job]
    if config.integration is not None:
        views = make_views(
            config.integration,
            CellReader(folders.cells),
            _wording(config, folders, is_sample=False),
            seed=config.seed,
        )
        jobs += _view_jobs(job, views)
    _embed_all(jobs, execute, on_progress)
    facts = plan | {"num_contexts": len(source)} | left_out
    if config.h5ad:
        write_embeddings(output / EMBEDDINGS, job, key=config.key, facts=facts)
    if config.into is not None:
        num_others = write_into(config.into, output / config.into.name, job, key=config.key)
        facts |= {"num_not_in_file": num_others}
    result = None
    if views is not None and config.integration is not None:
        vectors = [read_vectors(view_job) for view_job in jobs[1:]]
        compared = compare_views(config.integration, views, vectors[0], vectors[1])
        _write_integration(output, config.integration, views, compared)
        result = compared.result
    resumable.finish(output, facts)
    return result


def _source(
    config: EmbedConfig, folders: EmbedFolders
) -> tuple[ContextSource, dict[str, JsonValue]]:
    """What is embedded, and how much was left out of it."""
    if config.texts is not None:
        return read_texts(config.texts), {}
    cells = CellReader(folders.cells)
    wording = _wording(config, folders, is_sample=config.samples is not None)
    if config.samples is None:
        labels = cells.manifest.obs_columns if config.labels is None else config.labels
        return SingleCells(cells, wording, labels), {}
    sampled = sample_rows(cells, config.samples.by, config.samples.cells)
    left_out: dict[str, JsonValue] = {
        "num_unlabelled": sampled.num_unlabelled,
        "num_left_over": sampled.num_left_over,
    }
    for name, num in left_out.items():
        if num:
            log.info("left out of the samples: %s=%d cells", name, num)
    return CellSamples(cells, wording, config.samples.by, sampled), left_out


def _wording(config: EmbedConfig, folders: EmbedFolders, *, is_sample: bool) -> CellWording:
    if config.num_genes is None:
        raise ConfigError("embed.num_genes must be given where the run has no corpus, got None")
    return CellWording(
        template=template_of(config.prompt, is_sample=is_sample),
        num_genes=config.num_genes,
        organism=CellReader(folders.cells).manifest.organism,
    )


def _plan(config: EmbedConfig, folders: EmbedFolders) -> dict[str, JsonValue]:
    """Everything that the vectors depend on."""
    inputs = {"policy": policy_sha256(folders.policy)}
    if config.texts is not None:
        inputs["texts"] = sha256_of(config.texts)
    else:
        inputs["cells"] = sha256_of(folders.cells / MANIFEST)
    if config.integration is not None and config.integration.bulk is not None:
        inputs["bulk"] = sha256_of(config.integration.bulk / MANIFEST)
    return {
        "config": config.model_dump(mode="json"),
        "sha256": dict(inputs),
        "layer": LAYER,
        "pooling": POOLING,
    }


def _view_jobs(job: EmbedJob, views: Views) -> list[EmbedJob]:
    jobs: list[EmbedJob] = []
    for name, source in (("pseudobulks", views.pseudobulks), ("partners", views.partners)):
        folder = job.folder / name
        folder.mkdir(exist_ok=True)
        jobs.append(replace(job, source=source, folder=folder))
    return jobs


def _embed_all(jobs: list[EmbedJob], execute: Execute, on_progress: OnProgress) -> None:
    total = sum(len(job.source) for job in jobs)
    missing = [pending(job) for job in jobs]
    done = total - sum(
        stop - start
        for job, shards in zip(jobs, missing, strict=True)
        for start, stop in map(job.bounds, shards)
    )
    on_progress(done, total)
    for job, shards in zip(jobs, missing, strict=True):
        if not shards:
            continue
        for shard in execute(job, shards):
            start, stop = job.bounds(shard)
            done += stop - start
            on_progress(done, total)


def _write_integration(
    output: Path, config: IntegrationConfig, views: Views, compared: Compared
) -> None:
    from c2s_rl.evaluation.integration_page import integration_page, views_picture

    result = compared.result
    column = config.by.index(config.colour_by or config.by[-1])
    picture = views_picture(
        compared.first_S_D,
        compared.second_S_D,
        compared.closer_S,
        [labels[column] for labels in views.labels],
        ("pseudobulks", result.second_view),
    )
    facts = {
        "FOSCTTM (0 best, 0.5 random)": f"{result.foscttm:.4f}",
        "from pseudobulk to partner": f"{result.pseudobulk_to_partner:.4f}",
        "from partner to pseudobulk": f"{result.partner_to_pseudobulk:.4f}",
        "cosine of partners, mean": f"{result.partner_cosine:.4f}",
        "samples": f"{result.num_samples}, by {', '.join(result.by)}, {result.cells} cells each",
        "partners": result.second_view,
        "left out": f"{result.num_small} groups with too few cells, {result.num_unlabelled} cells "
        f"without a label, {result.num_without_bulk} pseudobulks without a bulk profile, "
        f"{result.num_bulk_unused} bulk profiles without a pseudobulk",
    }
    page = integration_page("Integration of single cells and bulk", facts, [picture])
    replace_text(output / INTEGRATION_PAGE, page)
    replace_text(output / INTEGRATION, result.model_dump_json(indent=1) + "\n")


def _finished(output: Path) -> IntegrationResult | None:
    path = output / INTEGRATION
    if not path.is_file():
        return None
    return IntegrationResult.model_validate_json(path.read_text(encoding="utf-8"))

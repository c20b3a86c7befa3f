"""One name for what both generations of L1000 metadata call differently.

GSE70138 and GSE92742 write inst_id, pert_iname, cell_id; CMap2020 writes sample_id, cmap_name,
cell_iname. A config may ask for either generation's own names, or for the names below, which are
found in both. Own names come first, so a column that is called `time` stays that column.
"""

from collections.abc import Sequence

# Name for configs to what it is called, the first that is there.
COMMON_NAMES = {
    "perturbation": ("pert_iname", "cmap_name"),
    "perturbation_id": ("pert_id",),
    "perturbation_type": ("pert_type",),
    "exposure": ("pert_idose",),
    "dose": ("pert_dose",),
    "dose_unit": ("pert_dose_unit",),
    "time": ("pert_time",),
    "time_unit": ("pert_time_unit",),
    "cell_line": ("cell_iname", "cell_id"),
    # The plate that was measured; older tables only know the one that was grown.
    "plate": ("det_plate", "rna_plate"),
    "well": ("det_well", "rna_well"),
}
PROFILE_IDS = ("inst_id", "sample_id")
GENE_IDS = ("entrez_id", "pr_gene_id", "gene_id")
GENE_SYMBOLS = ("symbol", "pr_gene_symbol", "gene_symbol")
L1000_SIGN = "pert_type"
"""A column that every L1000 table has and hardly any other."""


def own_name(asked: str, columns: Sequence[str]) -> str | None:
    """Return what a table calls a column; None where it has none.

    Args:
        asked: A name of the table's own, or one of `COMMON_NAMES`.
        columns: The columns of the table.
    """
    if asked in columns:
        return asked
    if L1000_SIGN not in columns:
        return None
    return next((name for name in COMMON_NAMES.get(asked, ()) if name in columns), None)


def first_known(wanted: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the first of some names that is a column."""
    return next((name for name in wanted if name in columns), None)

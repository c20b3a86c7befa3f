"""Small published scGPT folders with random weights, and the package's own embedding."""

import json

import numpy as np
import torch

from c2s_rl.models.scgpt_package import transformer_class

SYMBOLS = tuple(f"G{i}" for i in range(30))
TOKENS = {name: row for row, name in enumerate([*SYMBOLS, "<pad>", "<cls>", "<eoc>"])}
# What args.json of the published models holds beside keys that only training looks at.
ARGS = {
    "embsize": 16,
    "nheads": 4,
    "d_hid": 24,
    "nlayers": 3,
    "n_layers_cls": 3,
    "dropout": 0.2,
    "pad_token": "<pad>",
    "pad_value": -2,
    "mask_value": -1,
    "n_bins": 51,
    "max_seq_len": 12,
    "input_style": "binned",
    "input_emb_style": "continuous",
    "fast_transformer": True,
}


def package_model(args=ARGS, tokens=TOKENS, **options):
    """scgpt's own model; every weight is random, the ones that start as 0 or 1 as well."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformer_class()(
            ntoken=len(tokens), d_model=args["embsize"], nhead=args["nheads"],
            d_hid=args["d_hid"], nlayers=args["nlayers"], vocab=tokens, dropout=args["dropout"],
            pad_token="<pad>", pad_value=-2, do_mvc=True, **options,
        )  # fmt: skip
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def write_published(folder, *, is_flash=True, tokens=TOKENS, change=None, model=None, **args):
    """Write a folder; `change` may edit the weights first."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {**ARGS, **args}
    weights = dict((model or package_model(described, tokens)).state_dict())
    if is_flash:
        weights = {
            k.replace("self_attn.in_proj_", "self_attn.Wqkv."): v for k, v in weights.items()
        }
    if change is not None:
        change(weights)
    (folder / "args.json").write_text(json.dumps(described))
    (folder / "vocab.json").write_text(json.dumps(tokens))
    torch.save(weights, folder / "best_model.pt")
    return folder


def package_embeddings(model, genes_by_cell, bins_by_cell, tokens=TOKENS):
    """[C, D] first output of `_encode`, of unit length: what scgpt.tasks.cell_emb gives."""
    length = 1 + max(len(genes) for genes in genes_by_cell)
    src = torch.full((len(genes_by_cell), length), tokens["<pad>"])
    values = torch.full((len(genes_by_cell), length), -2.0)
    src[:, 0] = tokens["<cls>"]
    for row, (genes, bins) in enumerate(zip(genes_by_cell, bins_by_cell, strict=True)):
        src[row, 1 : 1 + len(genes)] = torch.tensor(genes, dtype=torch.long)
        values[row, 1 : 1 + len(bins)] = torch.tensor(bins, dtype=torch.float32)
    # With batch normalisation the package insists on labels, and does not use them.
    labels = torch.zeros(len(src)) if model.domain_spec_batchnorm else None
    with torch.no_grad():
        embedded = model._encode(src, values, src.eq(tokens["<pad>"]), labels)[:, 0].numpy()
    return embedded / np.linalg.norm(embedded, axis=1, keepdims=True)


def int32(*values):
    return np.array(values, dtype=np.int32)

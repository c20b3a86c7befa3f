"""Settings of a small scGPT that is trained on a user's own cells; needs no torch."""

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig


class EmbedderConfig(FrozenConfig):
    """Settings of the stage `train-embedder`."""

    embsize: int = Field(64, ge=1, description="Width of the embedding")
    nheads: int = Field(4, ge=1, description="Attention heads")
    d_hid: int = Field(128, ge=1, description="Width of the feed-forward layers")
    nlayers: int = Field(2, ge=1, description="Transformer layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout in training")
    n_bins: int = Field(51, ge=3, description="Bins of expression, the one of zero included")
    mask_ratio: float = Field(0.4, gt=0, lt=1, description="Share of genes whose bin is guessed")
    min_share: float = Field(
        0.3,
        gt=0,
        le=1,
        description="A batch shows from this share of a cell's genes up to all of them, so that "
        "gene programs and short answers are read as well",
    )
    num_steps: int = Field(600, ge=1, description="Optimiser updates")
    batch_size: int = Field(64, ge=2, description="Cells of an update")
    lr: float = Field(2e-3, gt=0, description="Highest learning rate of AdamW")
    eval_fraction: float = Field(0.1, gt=0, lt=1, description="Share of cells kept out")
    eval_every: int = Field(100, ge=1, description="Updates between held-out losses")
    seed: int = Field(0, ge=0, description="Seeds weights, batches and masks")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "EmbedderConfig":
        if self.embsize % self.nheads:
            raise ValueError(
                f"embsize must be a multiple of nheads, got {self.embsize} and {self.nheads}"
            )
        return self

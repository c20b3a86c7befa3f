"""c2s-rl: reinforcement learning of Cell2Sentence models on biological rewards."""

__version__ = "0.1.0"

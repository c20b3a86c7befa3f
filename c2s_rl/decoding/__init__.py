"""Which tokens may follow: the one source of the sampler's and the learner's mask."""

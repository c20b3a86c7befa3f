"""What a GRPO run will compute, hold and take on a cluster, by arithmetic: no weights read."""

"""GRPO as pure functions over tensors, and the roles that a cluster must fill."""

"""Everything that knows the cluster: Ray actors around vLLM, DeepSpeed and the rewards."""

"""Files in and out: expression matrices, cell shards, prompt shards, splits."""

"""What the cache commands say and do, and which cache is meant."""

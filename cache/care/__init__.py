"""Whether caches are whole, in what they differ, and what is done about it."""

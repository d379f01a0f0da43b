"""Caches for other programs, and as one file to send."""

"""Caches from object storage and web servers."""

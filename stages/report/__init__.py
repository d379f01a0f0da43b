"""Runs in, tables out."""

"""Figures over seeds, and what they say of each other."""

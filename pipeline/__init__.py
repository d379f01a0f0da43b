"""WHEN: command line, settings, wiring.  No maths."""

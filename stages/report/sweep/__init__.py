"""A grid search: table and figures."""

"""WHAT: the science.

    datasets -> extract -> (cache) -> train <- strategies ; report reads runs

`extract` and `train` never import each other: they meet only in `cache`.
"""

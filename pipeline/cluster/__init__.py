"""Units and runs on a Dask cluster."""

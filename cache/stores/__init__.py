"""The two stores: a Zarr folder, an HDF5 file."""

"""WHERE: feature caches on disk.

    writer -> (scratch folder, shard by shard) -> publish by rename -> reader

Two stores (zarr, hdf5) hold equal rows behind one contract.  Nothing read
from a cache is ever unpickled or executed.
"""

"""Who works on shards: this process, joblib's processes, a Dask cluster."""

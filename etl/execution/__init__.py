"""Where work runs: the only package that knows Dask."""

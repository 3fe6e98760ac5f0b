"""Files of a store: the only package that knows fsspec."""

"""The settings of one dataset: sections, loading, and what follows from them."""

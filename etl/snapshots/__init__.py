"""Published snapshots: read, compare, verify, export."""

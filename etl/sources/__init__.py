"""The files of a source."""

"""List, watch and read the files of a source."""

"""The commands of the data side."""

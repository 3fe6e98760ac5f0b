"""Pure stages: tables in, tables out."""

"""Pure stages: tables in, tables out.

`STAGES` names the stages of a build in their order. Each is a module here that says what is done, and a module of the
same name in `etl/jobs` that does it in a work folder.
"""

STAGES = ("ingest", "split", "audit", "remap", "tile", "anchors", "publish")
DISTRIBUTED = frozenset({"ingest", "audit", "tile"})  # their parts run on a Dask cluster

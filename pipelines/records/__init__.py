"""The records of a run: steps, checks, page, lineage."""

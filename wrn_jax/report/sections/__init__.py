"""One module for each part of the report: groups of runs in, blocks out."""

"""The comparison of finished runs.

In: work directories and logs. Out: a document. Imports `training` (for the records that it reads) and below.
"""

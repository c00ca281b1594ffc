"""A study: recipes and seeds as one piece of work, from its design to its report.

In: recipes. Out: runs, evaluations, a report, in one folder. Imports `planning`, `report` and below.
"""

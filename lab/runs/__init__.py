"""Recipes, and the runs that they are: recipes, networks, train, study, bench."""

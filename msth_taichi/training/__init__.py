"""The optimisation of a field, its schedules, and what a run leaves on disk."""

"""Records, errors, files, the run folder, the journal, the recipe: what everything stands on;
knows no model and no statistics."""

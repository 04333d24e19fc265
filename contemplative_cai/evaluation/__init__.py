"""Arms answer, judges that were measured look, and claims that were declared are tested."""

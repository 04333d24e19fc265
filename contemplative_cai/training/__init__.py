"""Pairs to an adapter: audited, watched, resumable, scored on unseen pairs."""

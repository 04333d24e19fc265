"""Triples to preference pairs: filtered, counted, described, published."""

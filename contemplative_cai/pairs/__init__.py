"""Triples to preference pairs: filtered, counted, reviewed, described, published."""

"""A run as a SageMaker job: what it needs, what it may cost, what travels, and how it is followed and fetched."""

"""What a model can do beside what it was trained for: short items with known answers, and signs of collapse."""

"""What can be counted or computed without a model: words of a text, near duplicates, intervals, agreement,
and how a figure looks."""

"""What lies in a run folder, said in tables, figures and words; and runs beside each other."""

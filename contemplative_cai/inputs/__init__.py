"""What goes in: prompts, constitutions, rubrics, helpful data; read, checked, divided and drawn, with leaks refused."""

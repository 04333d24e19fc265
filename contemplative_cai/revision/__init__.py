"""Answer, critique, revision: the constitutional loop, here or over Ray."""

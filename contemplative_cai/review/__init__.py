"""What people say of pairs: planned, asked blinded, written down, measured against each other and against judges."""

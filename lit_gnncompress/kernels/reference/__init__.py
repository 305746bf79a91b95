"""Plain torch: one file an operation, what it means."""

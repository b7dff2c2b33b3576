"""Which faces of a clip are one person: Union-Find and its rivals, diagnostics."""

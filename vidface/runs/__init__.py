"""A run directory: its stages and the artefacts that they hand on."""

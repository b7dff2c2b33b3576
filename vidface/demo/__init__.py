"""Short clips of real faces, rendered to try everything out."""

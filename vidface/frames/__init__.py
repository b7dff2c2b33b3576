"""A video to frames at given moments, by presentation time."""

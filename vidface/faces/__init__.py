"""Frames to aligned 112x112 faces, in processes that cannot hurt the run."""

"""Recognisers: aligned faces to embeddings."""

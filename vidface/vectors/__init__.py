"""Unit rows, clips in batches, and the pooling of kept faces into one descriptor."""

"""The challenges' files in and out."""

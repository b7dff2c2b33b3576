"""Pipeline files and manifests, read and checked."""

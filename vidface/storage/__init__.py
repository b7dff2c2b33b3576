"""Where files lie: folders, tars, URLs, object stores, the cache, locks."""

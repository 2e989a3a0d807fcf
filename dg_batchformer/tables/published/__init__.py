"""Published results for comparison: the data, matching by setting, and citations."""

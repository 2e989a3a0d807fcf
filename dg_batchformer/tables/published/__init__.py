"""Numbers of the literature beside ours: the data, what of it is comparable, and its citations."""

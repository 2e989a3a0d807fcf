"""Facts that need no torch: datasets, custom datasets, image manifests, names of wrappers and selection methods."""

"""What exists: facts of datasets, custom datasets, image manifests."""

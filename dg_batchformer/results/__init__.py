"""Records of sweeps, ours and DomainBed's, read back; metrics and model selection."""

"""Read the records of sweeps, ours and DomainBed's; metrics and model selection."""

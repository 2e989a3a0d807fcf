"""Statistics of row comparisons: pairing, confidence intervals, tests, and the verdict sentence."""

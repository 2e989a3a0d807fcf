"""Is row B better than row A? Paired rows, intervals, tests, and the verdict sentence."""

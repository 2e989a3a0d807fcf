"""What people can ask for, one file per verb: its options and what it does. None imports torch when loaded."""

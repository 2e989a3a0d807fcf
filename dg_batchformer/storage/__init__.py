"""What lies on disk: run and sweep folders, locks, record lines, and how untrusted files are read."""

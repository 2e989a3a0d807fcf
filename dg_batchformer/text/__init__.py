"""Text that people read: names of others made printable, Unicode spellings, the terminal."""

"""Text for people: escaping untrusted text, comparing Unicode names, writing to the terminal."""

"""Text for people: numbers in words, escaping untrusted text, comparing Unicode names, writing to the terminal."""

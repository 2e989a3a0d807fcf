"""Processes and memory: parallel maps over files, the allocator, memory limits."""

"""How processes run: parallel maps over files, the memory allocator, memory limits, durations."""

"""What a program pays before and beside its steps: start, first call, memory, allocations, disk."""

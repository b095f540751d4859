"""Time every road of this machine side by side: one thread, state carried, correctness first.

Nothing imports this package but the command line; it may import anything.
"""

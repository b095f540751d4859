"""Every goal of speed, measured on this machine: what was met and what not. See goals.py."""

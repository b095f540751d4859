"""The floor under a step: only loading the weights, and a step beside it over hidden sizes."""

"""Foreign formats into a Model: one file per format, each with `read(...) -> Model`.

A reader imports its format's library inside its functions, so that none is needed at run time.
"""

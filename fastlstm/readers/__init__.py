"""Foreign formats into a Model: one file per format, each with `read(...) -> Model`.

A reader imports its format's library inside its functions, so that none is needed at run time.

A new one is a file, keras_file.py say, whose `read` becomes `fastlstm.from_keras`. Where the format
lists its layers one after the other, it makes them of fastlstm.model's classes, with gates in their
order, and puts them into a Model. Where it holds a graph, it runs that over an elements.Trace:
operators that move values work on the numbers of elements, layers are applied by Trace.apply,
Trace.recurrent and arithmetic.py, loops that are written out are found by unrolled.py, and
chain.layers turns the place of the result into layers. Every operator is understood exactly or
refused by name with a ReaderError, and the whole is run against fastlstm.reference at the end.
"""

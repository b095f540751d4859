"""Runtimes that compute one LSTM with the reference's step in float32, rightly or with a fault."""

import numpy as np

import cases
from fastlstm import reference
from fastlstm.errors import UnsupportedError
from fastlstm.export.runtimes import Runtime
from fastlstm.model import Model

MODEL = Model((cases.recurrent("LSTM", 2, 6, initial=True),))


class Fake:
    """A runner of MODEL's graph; it remembers every one that was opened and closed."""

    opened: list["Fake"] = []  # noqa: RUF012  emptied by whoever counts

    def __init__(self, data):
        assert data  # the bytes of an .onnx file
        self.closed = False
        Fake.opened.append(self)

    def run(self, feeds):
        x, h, c = (feeds[name] for name in ("x", "h0_l0", "c0_l0"))
        lengths = feeds.get("lengths", np.full(len(x), x.shape[1], np.int32))
        assert lengths.dtype == np.int32
        layer = MODEL.layers[0]
        weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
        y, h, c = np.zeros((*x.shape[:2], 6), np.float32), h.copy(), c.copy()
        for k, steps in enumerate(lengths):
            for t in range(steps):
                h[k], c[k] = reference.lstm_step(
                    x[k, t], h[k], c[k], *weights, np.zeros(18, np.float32)
                )
                y[k, t] = h[k]
        return {"y": y, "hN_l0": h, "cN_l0": c}

    def close(self):
        self.closed = True


class SwapsStates(Fake):
    def run(self, feeds):
        found = super().run(feeds)
        return {"y": found["y"], "hN_l0": found["cN_l0"], "cN_l0": found["hN_l0"]}


class DropsState(Fake):
    """Begins every call anew."""

    def run(self, feeds):
        zeros = {s: np.zeros_like(feeds[s]) + 0.1 for s in ("h0_l0", "c0_l0")}
        return super().run({**feeds, **zeros})


class RunsTheFirstOnly(Fake):
    """Takes a batch for its first sequence."""

    def run(self, feeds):
        return super().run({**feeds, "x": np.repeat(feeds["x"][:1], len(feeds["x"]), axis=0)})


class IgnoresLengths(Fake):
    def run(self, feeds):
        return super().run({name: value for name, value in feeds.items() if name != "lengths"})


class SaysNothing(Fake):
    def run(self, feeds):
        found = super().run(feeds)
        return {**found, "y": np.full_like(found["y"], np.nan)}


class CutsShort(Fake):
    def run(self, feeds):
        found = super().run(feeds)
        return {**found, "y": found["y"][:, :-1]}


class RefusesBatches(Fake):
    def run(self, feeds):
        if len(feeds["x"]) > 1:
            raise UnsupportedError("fake: a batch of\n1 is all I take")
        return super().run(feeds)


class Breaks(Fake):
    def run(self, feeds):
        raise RuntimeError("out of order")


def refuses(data):
    """A load that refuses every graph."""
    raise UnsupportedError("fake: no such op: LSTM")


def runtime(load, lacks=""):
    """A Runtime around one of these."""
    return Runtime("fake", load, lambda: lacks, lambda: "1.2", "made for the tests")

"""Who may be timed: a contender whose outputs are the reference's, in each way that it is called.

The session that was checked is the session that is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference
from fastlstm.errors import UnsupportedError
from fastlstm.verify import REDUCED, Truth, Yardstick, truth

from ..contenders.contender import BATCH, RUN, STEP, STEPS_IN_A_BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastlstm.model import Model

    from ..contenders.contender import Contender, Session

# Steps of the check, fewer for a great model, whose reference takes long.
CHECK_STEPS, LEAST_STEPS, ENOUGH_WORK = 300, 20, 1 << 30
# ... and of each of many streams.
STREAM_STEPS = 20


@dataclass(frozen=True)
class Verdict:
    """What the check found in one way of calling; `reason` says why it is not to be timed."""

    error: float | None = None
    bound: float | None = None
    reason: str = ""


class Judge:
    """The reference's answers for one model, worked out once for all contenders."""

    def __init__(self, model: Model) -> None:
        """Of `model`; costs nothing yet."""
        self.model = model
        steps = min(CHECK_STEPS, max(LEAST_STEPS, ENOUGH_WORK // model.num_parameters))
        self.x = reference.check_input(model, steps, seed=1)
        self.yardstick = Yardstick(model)
        self._many: dict[int, tuple[NDArray[np.float32], Truth]] = {}

    @cached_property
    def truth(self) -> Truth:
        """Of one stream."""
        return truth(self.model, self.x)

    def many(self, streams: int) -> tuple[NDArray[np.float32], Truth]:
        """Different samples for each stream (streams, time, I), and the truth of all one by one."""
        if streams not in self._many:
            steps = min(STREAM_STEPS, max(3, len(self.x) // streams))
            x = reference.check_input(self.model, streams * steps, seed=3)
            x = x.reshape(streams, steps, -1)
            true = [truth(self.model, one) for one in x]
            together = Truth(
                x.reshape(streams * steps, -1),
                np.concatenate([one.output for one in true]),
                (),
                max(one.bound for one in true),
                0.0,
            )
            self._many[streams] = x, together
        return self._many[streams]

    def check(self, session: Session, contender: Contender, need: str, streams: int = 1) -> Verdict:
        """Call the session in the way that is needed, and compare all that it puts out."""
        if need not in contender.can and not (need == STEPS_IN_A_BLOCK and STEP in contender.can):
            return Verdict(reason=f"unsupported: {WHAT_IT_LACKS[need]}")
        try:
            if need == BATCH:
                x, true = self.many(streams)
                many = session.batch(streams)
                many.reset()
                found = np.stack([np.array(many.step(x[:, k])) for k in range(x.shape[1])], axis=1)
                found = found.reshape(true.output.shape)
            else:
                true = self.truth
                session.reset()
                if need in (RUN, STEPS_IN_A_BLOCK):
                    found = np.array(session.run(self.x))
                else:
                    found = np.stack([np.array(session.step(sample)) for sample in self.x])
        except UnsupportedError as error:
            return Verdict(reason=f"unsupported: {' '.join(str(error).split())}")
        except Exception as error:  # a foreign runtime may raise anything; the others go on
            return Verdict(reason=f"failed: {type(error).__name__}: {error}".splitlines()[0])
        return self._verdict(found, true, contender.precision)

    def _verdict(self, found: Any, true: Truth, precision: str) -> Verdict:
        if found.shape != true.output.shape:
            return Verdict(
                reason=f"refused: expected outputs {true.output.shape}, found {found.shape}"
            )
        difference = np.abs(found.astype(np.float64) - true.output)
        error = float(difference.max(initial=0))
        if precision in REDUCED:
            norm = float(np.linalg.norm(true.output)) or 1.0
            relative = float(np.linalg.norm(difference)) / norm
            if not relative <= REDUCED[precision]:
                return Verdict(
                    error,
                    reason=f"refused: its relative L2 error is {relative:.2e}, and weights of "
                    f"{precision} may have {REDUCED[precision]:.0e}",
                )
            return Verdict(error)
        bound = true.bound
        if not error <= bound:
            bound = max(bound, self.yardstick.bounds[0])
        if not (error <= bound < np.inf):
            return Verdict(
                error if np.isfinite(error) else None,
                bound if np.isfinite(bound) else None,
                f"refused: differs from the reference by {error:.2e}, allowed {bound:.2e}",
            )
        return Verdict(error, bound)


WHAT_IT_LACKS = {
    STEP: "it takes whole sequences only",
    RUN: "it takes single steps only",
    BATCH: "it takes one stream at a time",
    STEPS_IN_A_BLOCK: "it takes whole sequences only",
}


def open_session(contender: Contender, model: Model) -> tuple[Session | None, str]:
    """A session, or None and the reason why there is none."""
    if missing := contender.missing():
        return None, f"missing: {missing}"
    try:
        return contender.open(model), ""
    except UnsupportedError as error:
        return None, f"unsupported: {' '.join(str(error).split())}"
    except Exception as error:  # a foreign runtime may raise anything; the others go on
        return None, f"failed: {type(error).__name__}: {error}".splitlines()[0]

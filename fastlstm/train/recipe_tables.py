"""The tables of a recipe: what each may hold, what it means, and what it is by default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fastlstm.train.recipe_checks import contradictions, series_faults
from fastlstm.train.recipe_layers import AtLeast0, AtLeast1, LayerTable, ResidualLayer, Table

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(strict=False),
]
Columns = Annotated[Names, Field(min_length=1)]


def _two_ends(value: Any) -> Any:
    if type(value) is int:
        return (value, value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"expected a whole number, or [least, most], found {value!r}")
    return value


# A number, or the two ends of a range that it is drawn from.
Range = Annotated[tuple[int, int], BeforeValidator(_two_ends), Field(strict=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Split(Table):
    """How much each part gets: fractions that add up to 1, or whole numbers of steps or sequences.

    `by` "time" cuts every sequence in the order of time; "sequence" gives whole sequences to each
    part, in their order. Without a validation part the best epoch is chosen on the test part, and
    metrics.json says so.
    """

    train: Positive = 0.7
    validation: NotNegative = 0.15
    test: Positive = 0.15
    by: Literal["time", "sequence"] = "time"

    @property
    def counted(self) -> bool:
        """Whether these are numbers of steps or sequences rather than fractions."""
        return self.train >= 1

    @model_validator(mode="after")
    def _adds_up(self) -> Split:
        parts = (self.train, self.validation, self.test)
        if not self.counted and abs(sum(parts) - 1) > 1e-6:
            raise ValueError(
                f"train, validation and test must add up to 1, these add up to {sum(parts):.6g}: "
                "correct them, or give all three as whole numbers"
            )
        if self.counted and any(part != int(part) for part in parts):
            raise ValueError(
                "train, validation and test must all be fractions or all be whole numbers, found "
                + ", ".join(f"{part:g}" for part in parts)
            )
        return self


class Generator(Table):
    """Sequences made on the spot; the same seed makes the same ones.

    sine: sin(2 pi t / period). two_sines: periods of 40 and 17. cosine: cos(gap * t).
    mackey_glass: the equation of that name. waves: `sequences` waves of one length and period and
    of random phases in [-phase, phase), sin(x / period) or, of the shape "cos_sin_squared",
    cos(sin(x / period)^2). minutes: columns `minute` and `value` = 1.6 minute + 4 + an offset of
    each sequence, normal with mean 10 and deviation 1. ball: positions of a ball in uniform motion,
    5 to 10 of them, each a whole number.

    `samples`, `sequences` and `period` may be ranges [least, most], drawn from once.
    """

    kind: Literal["sine", "two_sines", "cosine", "mackey_glass", "waves", "minutes", "ball"]
    samples: Range = (2000, 2000)
    sequences: Range = (1, 1)
    period: Range = (40, 40)
    phase: AtLeast0 = 80
    gap: Positive = 0.01
    shape: Literal["sine", "cos_sin_squared"] = "sine"
    noise: NotNegative = 0.0
    # Steps of each sequence after its end, for nothing but closed-loop forecasts to be compared to.
    beyond: AtLeast0 = 0
    seed: AtLeast0 = 0

    @model_validator(mode="after")
    def _ranges(self) -> Generator:
        for name, least in (("samples", 2), ("sequences", 1), ("period", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(
                    f"{name}: expected a whole number of at least {least}, or [least, most], found "
                    f"[{low}, {high}]"
                )
        if self.sequences != (1, 1) and self.kind not in ("waves", "minutes", "ball"):
            raise ValueError(
                f'sequences: "waves", "minutes" and "ball" make several, found '
                f'{list(self.sequences)} with "{self.kind}": leave it out'
            )
        return self


class SeriesTable(Table):
    """Where the sequences come from, which columns are read, and how they are split and scaled.

    `layout` says what a row of a file is: a step of one long "series", or with `sequence` naming a
    column of ids, a step of that sequence; or in "lines" a whole sequence, of any length.
    `known_ahead` are columns whose future is known, such as the hour: with each sample the network
    sees them at the steps that it predicts. `scaling` "standard" takes mean and deviation from the
    training part, "divide" divides by `divisor`. `missing` says what to do with holes: empty or NaN
    values, and times that are left out.
    """

    path: str | None = None
    generator: Generator | None = None
    format: Literal["csv", "parquet", "npy", "npz"] | None = None
    layout: Literal["series", "lines"] = "series"
    input: Columns | None = None
    target: Columns | None = None
    known_ahead: Names = ()
    sequence: str | None = None
    time: str | None = None
    missing: Literal["refuse", "drop", "interpolate"] = "refuse"
    name: str | None = None
    unit: str | None = None
    scaling: Literal["standard", "divide", "none"] = "standard"
    divisor: Positive = 1.0
    split: Split = Split()

    @model_validator(mode="after")
    def _one_source(self) -> SeriesTable:
        if (self.path is None) == (self.generator is None):
            found = "neither" if self.path is None else "both"
            raise ValueError(f"expected one of path and generator, found {found}")
        if faults := list(series_faults(self)):
            raise ValueError("; ".join(faults))
        return self


class Windows(Table):
    """What the network sees at once in training, and what it predicts.

    `length` 0 takes whole sequences, of any lengths, and computes no padding. At a step the network
    predicts the value `horizon` steps ahead or, `direct`, all values from 1 to `horizon` steps
    ahead at once; horizon 0 predicts the targets of the same step. `loss_at` "every" step is
    many-to-many, "last" many-to-one. The first `warm_up` steps of a window carry no loss: there the
    state is still settling (burn-in). `stateful` carries the state from each window to the next one
    of the same stretch of the series (truncated backpropagation through time), of which there are
    training.batch_size. In the last `free_run` steps of a window the network is fed what it has
    itself forecast, and the loss is taken there alone, from epoch `free_run_after` on: it learns to
    hold a closed loop.
    """

    length: AtLeast0
    horizon: AtLeast0 = 1
    direct: bool = False
    loss_at: Literal["every", "last"] = "every"
    stride: AtLeast1 = 1
    warm_up: AtLeast0 = 0
    stateful: bool = False
    free_run: AtLeast0 = 0
    free_run_after: AtLeast0 = 0

    @model_validator(mode="after")
    def _leaves_something(self) -> Windows:
        if self.length and self.warm_up >= self.length:
            raise ValueError(
                f"warm_up must be less than length, found {self.warm_up} and {self.length}"
            )
        if self.direct and not self.horizon:
            raise ValueError("direct needs a horizon of at least 1, found 0")
        if self.free_run and not (
            self.free_run < self.length and self.loss_at == "every" and not self.stateful
        ):
            raise ValueError(
                f"free_run must be less than length, found {self.free_run} and {self.length}, with "
                'loss_at = "every" and not stateful'
            )
        if self.stateful and (not self.length or self.loss_at == "last"):
            raise ValueError(
                'stateful needs a length above 0 and loss_at = "every": it trains on windows that '
                "follow one another"
            )
        return self


class NetworkTable(Table):
    """The layers between the scalings, in order; the last one puts out what is predicted.

    `quantiles`, such as [0.1, 0.5, 0.9], has the network put out these quantiles instead of one
    value; 0.5 must be among them, as the forecast itself. `forget_gate_bias` is what LSTMs begin
    with there.
    """

    layers: Annotated[tuple[LayerTable, ...], Field(strict=False, min_length=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    learned_initial_state: bool = False
    forget_gate_bias: float | None = None
    quantiles: Annotated[tuple[Fraction, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _in_order(self) -> NetworkTable:
        if self.quantiles and (
            0.5 not in self.quantiles or sorted(set(self.quantiles)) != list(self.quantiles)
        ):
            raise ValueError(
                "quantiles: expected ascending fractions with 0.5 among them, found "
                f"{list(self.quantiles)}"
            )
        around = len(self.layers) == 1
        for layer in self.layers:
            if isinstance(layer, ResidualLayer) and _adds_target(layer, around):
                raise ValueError(
                    'layers: a Residual with add = "target" goes around the whole network, found '
                    "it beside or inside another layer: put all other layers into its `layers`, or "
                    'set add = "input"'
                )
        return self


def _adds_target(layer: ResidualLayer, around: bool) -> bool:
    """Whether this layer, unless it is `around` everything, or one inside it adds the target."""
    inner = [entry for entry in layer.layers if isinstance(entry, ResidualLayer)]
    return (layer.add == "target" and not around) or any(_adds_target(e, False) for e in inner)


class Optimiser(Table):
    """How the weights move.

    One step of L-BFGS takes up to `closure_calls` moves, from the last `history` of them; with
    `line_search` each goes as far as the strong Wolfe conditions ask for, and a step never ends
    before for want of progress. "least_squares" fits the last Dense layer in closed form, by ridge
    regression, and leaves the layers before it with their first weights: an echo state network.
    Each epoch tries the next of the `penalties`.

    Schedules: "cosine" falls to nothing over all steps, "one_cycle" rises to `learning_rate` and
    falls to nothing, "plateau" divides by 2 after `plateau_patience` epochs without a better
    validation.
    """

    name: Literal[
        "adam", "adamw", "nadam", "rmsprop", "sgd", "adagrad", "lbfgs", "least_squares"
    ] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["constant", "cosine", "one_cycle", "plateau"] = "constant"
    plateau_patience: AtLeast1 = 10
    closure_calls: AtLeast1 = 20
    line_search: bool = False
    history: AtLeast1 = 100
    penalties: Annotated[tuple[NotNegative, ...], Field(strict=False, min_length=1)] = (
        1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1,
    )  # fmt: skip

    @model_validator(mode="after")
    def _fits(self) -> Optimiser:
        if self.momentum and self.name not in ("sgd", "rmsprop"):
            raise ValueError(
                f'momentum belongs to "sgd" and "rmsprop", found {self.momentum:g} with '
                f'"{self.name}": leave it out'
            )
        if self.weight_decay and self.name == "lbfgs":
            raise ValueError(
                f"weight_decay is nothing that lbfgs knows, found {self.weight_decay:g}: set it to "
                "0 or choose another optimiser"
            )
        return self


class Training(Table):
    """How long, in what portions, and when to stop. `gradient_clip` 0 clips nothing.

    `batch_size` 0 takes all windows at once. `steps_per_epoch` 0 sees each window once in an epoch;
    otherwise an epoch is so many batches. `loss` "relative" is |y - p| / (|y| + relative_floor), in
    scaled values; with quantiles the loss is theirs (pinball). The best epoch is the one whose
    `monitor` was best on the validation part: its loss, its accuracy, or the error of the
    closed-loop forecast; `keep` "last" takes the last epoch instead. `level_shift` moves each
    training window, inputs and targets alike, up or down by a random amount of at most so many
    deviations: a network learns then to follow a series beyond the levels that it was trained on.
    Only for series that predict their own inputs.
    `input_noise` is the deviation of what is added to the inputs in training, in scaled values.
    """

    max_epochs: AtLeast1 = 100
    steps_per_epoch: AtLeast0 = 0
    batch_size: AtLeast0 = 32
    patience: AtLeast1 = 20
    gradient_clip: NotNegative = 1.0
    level_shift: NotNegative = 0.0
    input_noise: NotNegative = 0.0
    average_weights: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["mse", "mae", "huber", "relative"] = "mse"
    relative_floor: Positive = 1e-4
    monitor: Literal["loss", "accuracy", "closed_loop"] = "loss"
    keep: Literal["best", "last"] = "best"
    # Lightning's bound; and past some thousands of threads torch ends the process.
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: AtLeast1 = 1
    nodes: AtLeast1 = 1
    precision: Literal["32", "64", "bf16-mixed", "16-mixed"] = "32"
    tensorboard: bool = False


class ClosedLoop(Table):
    """A forecast that feeds on itself, after every epoch, from the end of each sequence.

    `steps` 0 makes none. Its error is reported over the first `near` steps and over all of them.
    Sequences without anything `beyond` their end are left `steps` before it.
    """

    steps: AtLeast0 = 0
    near: AtLeast1 = 100


class Evaluation(Table):
    """What the test part is compared with beside the last value, and how the backtest goes.

    `period` is the season of the seasonal naive forecast, 0 for none. `linear_window` fits one
    linear map on so many values, the last one removed and added again; 0 fits none. `origins` is
    how many steps lie between two origins of the rolling backtest, 0 for as many as give about 200
    of them; `steps` how far each forecast goes, 0 for the horizon. `accuracy_floor` is what keeps
    the accuracy 1 - mean(|y - p| / (|y| + floor)) finite, in scaled values. `published` are figures
    of `metric` that others report, to be shown beside; `best_by` chooses among variants.
    """

    period: AtLeast0 = 0
    linear_window: AtLeast0 = 0
    origins: AtLeast0 = 0
    steps: AtLeast0 = 0
    accuracy_floor: Positive = 1e-4
    metric: str = "rmse"
    published: dict[str, float] = Field(default_factory=dict)
    best_by: str | None = None


class Recipe(Table):
    """One training run, whole: the same recipe and series give the same model.

    `variants` are named changes to it, each a table of the keys that differ: `fastlstm train` runs
    them all, one after the other, and compares them.
    """

    name: str
    series: SeriesTable
    windows: Windows
    network: NetworkTable
    optimiser: Optimiser = Optimiser()
    training: Training = Training()
    closed_loop: ClosedLoop = ClosedLoop()
    evaluation: Evaluation = Evaluation()
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if faults := contradictions(self):
            raise ValueError("; ".join(faults))
        return self


TABLES: dict[str, type[Table]] = {
    "series": SeriesTable,
    "series.generator": Generator,
    "series.split": Split,
    "windows": Windows,
    "network": NetworkTable,
    "optimiser": Optimiser,
    "training": Training,
    "closed_loop": ClosedLoop,
    "evaluation": Evaluation,
}

"""Windows of sequences that lie in memory as one tensor, gathered in a few indexing calls.

Nothing here looks at a single sample in Python, and no padding is ever computed: windows of one
length are stacked, those of several are packed.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fastlstm.errors import SeriesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlstm.train.loop import Task
    from fastlstm.train.recipe_tables import Windows as WindowsTable
    from fastlstm.train.split import Segment

# Values of a batch that is only looked at, not trained on: bounds its memory.
LOOK_AT_ONCE = 1 << 18
# Batches in a group: what comes between groups is then lost in the steps, and a process that is
# asked to end, which Lightning looks for there, soon does.
GROUP = 16


class Batch(NamedTuple):
    """Which rows of the series go in, and at which steps something is predicted."""

    rows: Tensor  # (windows, time) or, packed, (values,)
    sizes: Tensor | None  # packed: (time,), how many windows run at each step
    scored: Tensor | slice  # the steps from which on loss is taken or, packed, the values
    origins: Tensor  # rows at those steps: (windows, steps) or (values,)

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return len(self.rows) if self.sizes is None else int(self.sizes[0])

    def of_windows(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """One value for each window (windows,), laid out as the inputs and as the truth are."""
        if self.sizes is None:
            return values[:, None, None], values[:, None, None, None]
        assert isinstance(self.scored, Tensor)
        # Side by side at each step run the first so many windows.
        at = torch.cat([torch.arange(count) for count in self.sizes.tolist()])
        return values[at, None], values[at[self.scored], None, None]


class Windows:
    """Windows by where they begin, how long they are, and how many first steps carry no loss."""

    def __init__(self, starts: Tensor, lengths: Tensor, skips: Tensor) -> None:
        """Each (windows,) int64 on the CPU; a window of n steps reads n rows from its start on."""
        self.starts, self.lengths, self.skips = starts, lengths, skips
        self.same = len(starts) == 0 or bool(
            (lengths == lengths[0]).all() and (skips == skips[0]).all()
        )

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def to_train_on(cls, parts: tuple[Segment, ...], table: WindowsTable) -> Windows:
        """All windows of the training part, whole sequences where the recipe's length is 0."""
        starts: list[Tensor] = []
        lengths: list[Tensor] = []
        for segment in parts:
            room = segment.end - segment.first - table.horizon
            length = table.length or room
            if room < max(length, table.warm_up + 1):
                continue
            found = torch.arange(segment.first, segment.end - table.horizon - length + 1)
            starts.append(found[:: table.stride])
            lengths.append(torch.full_like(starts[-1], length))
        return cls._scored(torch.cat(starts), torch.cat(lengths), table)

    @classmethod
    def to_look_at(cls, parts: tuple[Segment, ...], table: WindowsTable) -> Windows:
        """What covers a validation or test part as training sees it.

        Whole sequences where the recipe's length is 0; every window whose forecast lies in the part
        where loss is taken at the last step; else one stream through each segment, whose state has
        settled over a window before it.
        """
        if not table.length:
            return cls.to_train_on(parts, table)
        starts, lengths, skips = [], [], []
        for segment in parts:
            # The first origin that forecasts nothing before the part, and the last inside it.
            first = max(segment.first - (1 if table.direct else table.horizon), segment.begin)
            last = segment.end - 1 - table.horizon
            if table.loss_at == "last":
                first = max(first, segment.begin + table.length - 1)
                ends = torch.arange(first, max(first, last + 1))
                starts.append(ends - (table.length - 1))
                lengths.append(torch.full_like(ends, table.length))
                skips.append(torch.full_like(ends, table.length - 1))
            elif last >= first:
                begin = max(segment.begin, first - table.length)
                starts.append(torch.tensor([begin]))
                lengths.append(torch.tensor([last + 1 - begin]))
                # Where a sequence begins with the part, so does the burn-in.
                warm_up = table.warm_up if begin == first else 0
                skips.append(torch.tensor([min(first - begin + warm_up, last - begin)]))
        return cls(torch.cat(starts), torch.cat(lengths), torch.cat(skips))

    @classmethod
    def _scored(cls, starts: Tensor, lengths: Tensor, table: WindowsTable) -> Windows:
        if table.loss_at == "last":
            return cls(starts, lengths, lengths - 1)
        return cls(starts, lengths, torch.full_like(lengths, table.warm_up))

    def batch(self, numbers: Tensor) -> Batch:
        """The windows of these numbers as one batch."""
        starts, lengths, skips = self.starts[numbers], self.lengths[numbers], self.skips[numbers]
        if self.same:
            rows = starts[:, None] + torch.arange(int(self.lengths[0]))
            scored = slice(int(self.skips[0]), None)
            return Batch(rows, None, scored, rows[:, scored])
        # Packed: the longest first, and all that run at one step side by side.
        lengths, order = lengths.sort(descending=True, stable=True)
        starts, skips = starts[order], skips[order]
        time = torch.arange(int(lengths[0]))[:, None]
        running = time < lengths
        rows = (starts + time)[running]
        places = (running & (time >= skips))[running].nonzero()[:, 0]
        return Batch(rows, running.sum(1), places, rows[places])

    def share(self, some: Tensor, all_of_them: Tensor) -> float:
        """What part of the predictions of `all_of_them` belongs to `some`."""
        predictions = self.lengths - self.skips
        return float(predictions[some].sum() / predictions[all_of_them].sum())

    def all_at_once(self) -> Iterator[Batch]:
        """All windows, in batches of bounded memory."""
        if not len(self):
            return
        at_once = max(1, LOOK_AT_ONCE // int(self.lengths.max()))
        for numbers in torch.split(torch.arange(len(self)), at_once):
            yield self.batch(numbers)


class Tracks:
    """Stretches of equal length side by side, walked through window by window, state carried on."""

    def __init__(self, parts: tuple[Segment, ...], table: WindowsTable, count: int) -> None:
        """One long segment is cut into `count` stretches.

        Of many each is one; those of like lengths go side by side, `count` at once, to the end of
        the shortest of them. Raises SeriesError where a stretch is shorter than a window.
        """
        self.table = table
        rooms = [(s.end - s.first - table.horizon, s.first) for s in parts]
        if len(rooms) == 1:
            ((room, first),) = rooms
            length = room // count
            if length < table.length:
                raise SeriesError(
                    f"windows.stateful: the training part gives {count} stretches of {length} "
                    f"samples, shorter than one window of windows.length {table.length}: give a "
                    "longer series, a smaller training.batch_size or a smaller windows.length"
                )
            rooms = [(length, first + length * k) for k in range(count)]
        rooms = [room for room in rooms if room[0] >= table.length]
        rooms.sort(key=lambda room: -room[0])
        groups = [rooms[k : k + count] for k in range(0, len(rooms), count)]
        # Of each group where its stretches begin, and how long all of them are.
        self.groups = [
            (torch.tensor([first for _, first in group]), min(room for room, _ in group))
            for group in groups
        ]

    def __len__(self) -> int:
        return sum(length // self.table.length for _, length in self.groups)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Batch, bool]]:
        """Each batch, and whether it begins new stretches, before which there is no state.

        Where the first window begins is drawn anew each time, so that the cuts, which no gradient
        crosses, do not always lie at the same places.
        """
        window = self.table.length
        for starts, length in self.groups:
            shift = int(torch.randint(length % window + 1, (), generator=generator))
            for k in range(length // window):
                rows = starts[:, None] + shift + k * window + torch.arange(window)
                scored = slice(self.table.warm_up if k == 0 else 0, None)
                yield Batch(rows, None, scored, rows[:, scored]), k == 0


class Batches:
    """The batches of an epoch, in an order that the seed and the epoch alone decide.

    Several processes share out the windows of each batch, so that together they see the batches
    that one alone would see.
    """

    def __init__(self, task: Task) -> None:
        """Over the training part."""
        table, training = task.recipe.windows, task.recipe.training
        self.task = task
        self.tracks: Tracks | None = None
        if table.stateful:
            self.tracks = Tracks(task.parts.train, table, training.batch_size or 1)
        else:
            self.windows = Windows.to_train_on(task.parts.train, table)
            self.size = min(training.batch_size or len(self.windows), len(self.windows))

    def __len__(self) -> int:
        if self.tracks is not None:
            return len(self.tracks)
        return self.task.recipe.training.steps_per_epoch or -(-len(self.windows) // self.size)

    def __iter__(self) -> Iterator[Any]:
        # A generator, because Lightning asks for the iterator of a resumed epoch before it has set
        # the epoch's number, and for its first batch after that.
        generator = torch.Generator().manual_seed(self.task.epoch_seed())
        if self.tracks is not None:
            yield from self.tracks.batches(generator)
            return
        count, limit, made = len(self.windows), len(self), 0
        rank, world = self.task.global_rank, self.task.world_size
        while made < limit:
            order = torch.randperm(count, generator=generator)
            for numbers in torch.split(order, self.size)[: limit - made]:
                made += 1
                # Fewer windows than processes: one works in vain, lest the others wait for it.
                own = numbers[rank::world] if rank < len(numbers) else numbers[:1]
                share = 1.0
                if world > 1:
                    share = self.windows.share(own, numbers) if rank < len(numbers) else 0.0
                yield self.windows.batch(own), share


class Groups:
    """The same batches in the same order, so many at a time; each is made when it is needed."""

    def __init__(self, batches: Batches) -> None:
        """Each group is to be used up before the next is asked for."""
        self.batches = batches

    def __len__(self) -> int:
        return -(-len(self.batches) // GROUP)

    def __iter__(self) -> Iterator[Iterator[Any]]:
        batches = iter(self.batches)
        for _ in range(len(self)):
            yield islice(batches, GROUP)


class Looks:
    """The batches of the validation part. Lightning takes a bare list for several data sets."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

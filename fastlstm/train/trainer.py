"""Lightning's Trainer as a recipe sets it: callbacks, loggers, devices, seeds and quiet."""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.profilers import PassThroughProfiler

from fastlstm.errors import MissingExtraError
from fastlstm.train import memory
from fastlstm.train.loop import Task, TrainingError
from fastlstm.train.progress import EpochBar, print_line
from fastlstm.whole_file import write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlstm.train.recipe_tables import Recipe


@contextmanager
def surroundings(recipe: Recipe) -> Iterator[None]:
    """Seeds, threads, determinism and logging for one run; all as before when it ends."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    environment = {name: os.environ.get(name) for name in _LIGHTNING_VARIABLES}
    # Lightning announces devices, tips and each stop; the bar and the run folder say what matters.
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    # Lightning's own isolate_rng leaves everything as it is after an error.
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count())
    with memory.kept(), torch.random.fork_rng(devices), warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            torch.set_num_threads(recipe.training.threads)
            seed_everything(recipe.training.seed, verbose=False)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - the one that Lightning seeds
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


_LIGHTNING_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
_KNOWN_WARNINGS = (
    # Lightning's own affair with newer torch; nothing that a recipe could change.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # A resumed run: that is the point.
    r"Checkpoint directory .* exists and is not empty",
    # It is always at the end of one; Lightning compares steps with groups of batches.
    r"You're resuming from a checkpoint that ended before the epoch ended",
    # Task steps it, where Lightning leaves that to it.
    r"The lr scheduler dict contains the key\(s\) \['monitor'\]",
)


def is_main() -> bool:
    """Whether this process is the one that writes files, of all that train together."""
    return not any(int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "NODE_RANK"))


def has_gpu() -> bool:
    """Whether Lightning sees an accelerator beside the CPU."""
    return CUDAAccelerator.is_available() or MPSAccelerator.is_available()


def check_accelerator(recipe: Recipe) -> None:
    """Refuse a recipe that asks for what this machine has not; raises TrainingError."""
    training = recipe.training
    if training.accelerator == "gpu" and not has_gpu():
        raise TrainingError(
            f"{recipe.name}: no gpu that torch can use was found on this machine: set "
            'training.accelerator = "auto" to take what is there'
        )
    if training.precision == "16-mixed" and (training.accelerator == "cpu" or not has_gpu()):
        raise TrainingError(
            f'{recipe.name}: training.precision "16-mixed" needs a gpu, and there is none to be '
            'used: set it to "bf16-mixed" or "32"'
        )


class _Checkpoints(ModelCheckpoint):
    """Lightning's own, but a folder that was moved still knows its best epoch."""

    state_key = "ModelCheckpoint"  # see QUICK

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over with every path in the folder where the run is now."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {name: here(state_dict[name]) for name in paths}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath}
        )


class _Stopping(EarlyStopping):
    """Lightning's own; see QUICK for its key."""

    state_key = "EarlyStopping"


class _Silence(PassThroughProfiler):
    """No profiler; see QUICK."""

    def profile(self, action_name: str) -> Any:
        """Nothing is begun or ended."""
        return _NOTHING


# QUICK: a step of a small network takes a millisecond. In each Lightning enters some sixty contexts
# of its profiler and asks each callback thrice for its key, which it writes out anew from all of
# its settings: together a tenth of that step.
_NOTHING = nullcontext()


class _WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all.

    Lightning's own go by way of the system's temporary folder, and what moves from there to another
    disk is a copy that may stop half way.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Put it where it belongs; raises OSError where that fails."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, buffer.getvalue())


def trainer_of(task: Task, work: Path, progress: bool, *, only_try: bool = False) -> Trainer:
    """A Trainer for the epochs that the recipe asks for, whose checkpoints go under `work`.

    `only_try` leaves out what ends a run early and what it leaves behind, and lets Lightning see
    each batch.
    """
    training = task.recipe.training
    if not only_try:
        task.group()
    lasting: list[Any] = [
        _Stopping("monitored", patience=training.patience),
        _Checkpoints(
            work / "checkpoints",
            "best",
            monitor="monitored",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]
    callbacks = [] if only_try else lasting
    if training.average_weights:
        callbacks.append(EMAWeightAveraging(decay=training.average_weights))
    if progress and is_main():
        callbacks.append(EpochBar())
    processes = training.devices * training.nodes
    return Trainer(
        # Whoever only tries says itself how many batches.
        max_epochs=-1 if only_try else training.max_epochs,
        accelerator=training.accelerator,
        devices=training.devices,
        num_nodes=training.nodes,
        strategy="ddp" if processes > 1 else "auto",
        use_distributed_sampler=False,
        precision=_PRECISIONS[training.precision],
        callbacks=callbacks,
        plugins=[_WholeFiles()],
        profiler=_Silence(),
        gradient_clip_val=(training.gradient_clip or None) if task.automatic_optimization else None,
        deterministic=True,
        logger=_tensorboard(work) if training.tensorboard and not only_try else False,
        # Logged is by the epoch; Lightning warns where one has fewer steps than this.
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=work,
    )


_PRECISIONS: dict[str, Any] = {
    "32": "32-true",
    "64": "64-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
}


def _tensorboard(work: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(work, name="logs", version="")
    except ModuleNotFoundError:
        raise MissingExtraError("tensorboardX", "tensorboard", "training.tensorboard") from None


def train(task: Task, work: Path, last: Path | None, progress: bool) -> None:
    """Let Lightning run the epochs that are left."""
    interrupt = signal.getsignal(signal.SIGINT)
    trainer = trainer_of(task, work, progress)
    try:
        trainer.fit(task, ckpt_path=last, weights_only=True)
    except OSError as error:
        raise unwritten(error, work) from None
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        # Lightning answers Ctrl-C by ending the process and leaves Ctrl-C switched off; whether the
        # process ends is for the caller to say.
        signal.signal(signal.SIGINT, interrupt)
        if progress and is_main():
            print_line(f"stopped after {len(task.history)} epochs; resume to go on from there")
        raise KeyboardInterrupt from None


def unwritten(error: OSError, work: Path) -> TrainingError:
    """What a run says that could not write a file: nothing of what it did before is lost."""
    return TrainingError(
        f"{error.filename or work}: {error.strerror or error}: the run could not write its files; "
        "the checkpoint before is whole: make room and resume"
    )

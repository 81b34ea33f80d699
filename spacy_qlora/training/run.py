"""One training run: a config in, model-best and model-last out."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
from catalogue import RegistryError
from spacy.errors import Errors
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import create_before_to_disk_callback, create_evaluation_callback, update_meta
from spacy.util import load_model_from_config
from thinc.api import Config, ConfigValidationError
from tqdm import tqdm
from wasabi import msg

from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.files import bring_back, make_folder, require_place
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.memory import is_out_of_memory, peak_memory
from spacy_qlora.engine.prefix import with_states
from spacy_qlora.engine.progress import Hooks, Progress, StopRun
from spacy_qlora.engine.source import cache_folder
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError, QLoRAError
from spacy_qlora.training.calibrate import calibrate_pipeline
from spacy_qlora.training.config import TrainingConfig, problem, resolve
from spacy_qlora.training.corpus import check_dev, check_train, damaged, digest, read_corpus, require_docbins
from spacy_qlora.training.display import Bar, describe
from spacy_qlora.training.history import FILE, History
from spacy_qlora.training.save import is_pipeline, save_pipeline
from spacy_qlora.training.stop import Stop, stop_on_signals

QUOTING = ("[E194]", "[E949]")  # texts, where words do not add up to them
BEST, LAST, STATE = "model-best", "model-last", "checkpoint"
# Of what a checkpoint is compared by: where all of these are as they were, another machine computes or plans otherwise.
GIVEN = {"base", "config", "corpus", "dev", "labels"}


def train(path: Path, config: Config, output: Path, resume: bool = False, require: bool = True) -> Progress:
    """Trains the pipeline of a config with the engine's loop.

    path: Of the config, for errors.  output: Folder of model-best, model-last and the checkpoint.
    resume: Go on where the run in `output` stopped.
    require: Whether that has to be a run of the same config and corpus; otherwise a new one starts in place of another.
    RETURNS: Where the run ended. Raises InputError or RunError where it cannot be started or finished, and StopRun with
    the number of a signal that came, once its state is saved.
    """
    for name in (BEST, LAST):
        bring_back(output / name)
        require_place(output / name, is_ours=is_pipeline)
    make_folder(output)
    if (output / STATE).exists():
        make_folder(output / STATE)
    run = prepare(path, config)
    nlp, ner, loop = run.nlp, run.ner, run.make_loop(output / STATE)
    if resume and (require or (output / STATE).exists()):
        go_on(loop, output, require)
    elif (output / STATE).exists():
        what = f"{output}: holds an earlier run, which this one replaces from its first evaluation on."
        msg.info(f"{what} To go on with it instead, stop now and give --resume.")
    if loop.progress.best >= 0 and not is_pipeline(output / BEST):
        raise InputError("Q418", path=output / BEST)
    history = History(output / FILE, loop.progress)
    print(describe(ner, loop))
    with nlp.select_pipes(enable=[ner.name]):  # the logger has a column for each component that is trained
        log_step, finalize = run.config.training["logger"](nlp, sys.stdout, sys.stderr)
    with stop_on_signals() as stop:
        hooks = make_hooks(nlp, ner, run.config, output, history, run.strings, log_step, stop)
        with Bar(loop) as bar:

            def on_step(progress: Progress) -> None:
                bar.on_step(progress)
                stop.check()

            try:
                progress = loop.run(Hooks(*hooks, on_step=on_step))
            except StopRun:
                if loop.progress.best < 0 and is_pipeline(output / BEST):
                    msg.warn(f"{output / BEST} is still that of an earlier run: this one has not been evaluated yet.")
                raise
            finally:
                finalize()
        with stop.at_once():
            best = spacy.load(output / BEST)
            calibrate_pipeline(best, run.config.dev(best), output / BEST)
    return progress


def go_on(loop: Loop, output: Path, require: bool) -> None:
    """Sets the loop to where the run in `output` stopped.

    require: As in `train`: if not, other settings that the steps do not depend on make it another run, too, and so does
    the loss of a pipeline.
    """
    is_whole = not (output / FILE).exists() or all(is_pipeline(output / name) for name in (BEST, LAST))
    if require or is_whole:
        try:
            if not loop.resume(may_differ=("config",) if require else ()):
                what = f"{output / STATE}: the last checkpoint is missing or damaged."
                msg.warn(f"{what} Going on from the one before it.")
            return
        except InputError as error:  # before anything was changed
            changed = set(str(error.where.get("changed", "")).split(", "))
            if require or (error.code == "Q405" and not changed & GIVEN):
                raise
    msg.info(f"{output}: holds no run of this config and corpus to go on with. Starting anew.")


@dataclass(frozen=True)
class Run:
    """What a config describes, checked and read.

    nlp: The initialised pipeline.  ner: Its component that is trained.  windows: Of the train corpus.
    strings: That the vocabulary holds before any text is read.  made_of: What the windows do not tell of the run.
    """

    nlp: Language
    ner: QLoRANER
    config: TrainingConfig
    windows: list[Window]
    strings: list[str]
    made_of: Mapping[str, object]

    def make_loop(self, checkpoints: Path | None) -> Loop:
        """checkpoints: As of the Loop. Raises InputError where the memory budget is too small."""
        classifier, settings = self.ner.model.classifier, self.config.loop
        optimizer = self.config.training["optimizer"].settings
        loop = Loop(classifier, self.windows, settings, optimizer, self.config.schedule, checkpoints, self.made_of)
        if classifier.frozen and settings.prefix_cache:
            batch_pieces = self.ner.settings.batch_pieces
            loop.windows = with_states(classifier, self.windows, batch_pieces, cache_folder() / "states")
        return loop


def prepare(path: Path, config: Config) -> Run:
    """path: Of the config, for errors. Raises InputError or RunError where a run cannot be started."""
    nlp = make_pipeline(path, config)
    resolved = resolve(path, nlp)
    ner = only_component(path, nlp, resolved.training["frozen_components"])
    ner.model.forget_calibration()  # of a sourced component
    texts: set[int] = set()
    windows = ner.training_windows(check_train(nlp, read_corpus(path, "train", resolved.train, nlp), texts))
    if not windows:
        raise InputError("Q409", path=path, split="train")
    dev = [example.reference for example in read_corpus(path, "dev", resolved.dev, nlp)]
    check_dev(path, ner, dev, texts)
    made_of = {"labels": list(ner.labels), "dev": digest(dev), "config": digest_config(nlp.config, ner.name)}
    strings = load_model_from_config(config, auto_fill=True).vocab.strings  # nlp has read the corpora
    return Run(nlp, ner, resolved, windows, list(strings), made_of)


def digest_config(config: Config, component: str) -> str:
    """SHA-256 over the config without its paths, since what lies there counts, and without what each machine may have
    of its own.
    """
    same = config.copy()
    same.pop("paths", None)
    same["components"][component] |= {"device": "auto", "compute_dtype": "auto"}
    return hashlib.sha256(same.to_str(interpolate=False).encode()).hexdigest()


def make_pipeline(path: Path, config: Config) -> Language:
    """The initialised pipeline. Raises InputError where the config or its corpora are wrong."""
    try:
        require_docbins(config.interpolate().get("corpora", {}))
        return init_nlp(config)
    except QLoRAError:
        raise
    except FileNotFoundError as error:
        raise InputError("Q411", path=error.filename or path, reason="no such file") from error
    except OSError:
        raise
    except Exception as error:  # spaCy raises many kinds
        if is_out_of_memory(error):
            raise
        if str(error) == Errors.E1014:
            raise damaged(path, "train") from error
        if str(error).startswith("[E088]"):
            raise InputError("Q417", path=path, split="train") from error
        raise InputError("Q401", path=path, problem=told(error)) from error


def told(error: Exception) -> str:
    """What may be shown of an error; of one that could quote the corpus, which was read as well, the kind alone."""
    known = re.match(r"\[E\d+\]|Can't read file:", str(error))  # spaCy's, and srsly's of a path
    is_safe = isinstance(error, (ConfigValidationError, RegistryError, ImportError))
    return problem(error) if is_safe or (known and known[0] not in QUOTING) else type(error).__name__


def only_component(path: Path, nlp: Language, frozen: Sequence[str]) -> QLoRANER:
    """The one component that this loop trains. Raises InputError where it is not one, or another has to be trained."""
    found = [pipe for _, pipe in nlp.pipeline if isinstance(pipe, QLoRANER)]
    if len(found) != 1:
        raise InputError("Q408", path=path, count=len(found))
    for name, pipe in nlp.pipeline:
        if pipe is found[0] and name in frozen:
            raise InputError("Q413", path=path, name=name)
        if pipe is not found[0] and getattr(pipe, "is_trainable", False) and name not in frozen:
            raise InputError("Q412", path=path, name=name)
    return found[0]


def make_hooks(
    nlp: Language,
    ner: QLoRANER,
    run: TrainingConfig,
    output: Path,
    history: History,
    strings: Sequence[str],
    log_step: Callable[[dict[str, Any]], None],
    stop: Stop,
) -> tuple[Callable[[], float], Callable[[Progress, bool], None]]:
    """What happens beside the steps: spaCy's evaluation, rows in its logger, pipelines and history on disk."""
    weighted = create_evaluation_callback(nlp, run.dev, run.training["score_weights"])
    before_to_disk = create_before_to_disk_callback(run.training["before_to_disk"])
    scores: dict[str, Any] = {}

    def evaluate() -> float:
        with stop.at_once():
            score, found = weighted()
        scores.clear()
        scores.update(found)
        return score

    def on_evaluation(progress: Progress, best: bool) -> None:
        info = {
            "epoch": progress.epoch,
            "step": progress.step,
            "score": progress.score,
            "other_scores": dict(scores),
            "losses": {ner.name: progress.loss},
            "seconds": int(progress.seconds),
            "words": progress.words,
        }
        update_meta(run.training, nlp, info)
        for name in (LAST, BEST) if best else (LAST,):
            save_pipeline(before_to_disk(nlp), output / name, strings)
        kept = {name: scores.get(name) for name in run.training["score_weights"]}
        history.add(progress, kept, peak_memory(ner.model.classifier.device))
        info["checkpoints"] = [(each.score, each.step) for each in history.evaluations]
        info["output_path"] = str(output / LAST)
        with tqdm.external_write_mode():
            log_step(info)

    return evaluate, on_evaluation

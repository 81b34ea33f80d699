"""The temperature and the threshold of a saved pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spacy.language import Language
from spacy.strings import StringStore
from spacy.training import Example
from wasabi import msg

from spacy_qlora.component import QLoRANER
from spacy_qlora.evaluation.calibration import LEAST, calibrate
from spacy_qlora.training.save import STRINGS, save_pipeline


def calibrate_pipeline(nlp: Language, examples: Iterable[Example], path: Path) -> None:
    """Sets the temperature and the threshold of each qlora_ner, and says what that gave.

    The pipeline is saved to `path`, with the scores that it has now as its performance.

    examples (Iterable[Example]): Gold docs that it was not trained on.
    """
    examples = list(examples)
    for name, ner in nlp.pipeline:
        if isinstance(ner, QLoRANER):
            found = calibrate(ner, examples)
            if found.temperature is None:
                msg.warn(f"{name}: not calibrated; that takes {LEAST} entities found, right and wrong ones.")
                continue
            ner.model.temperature, ner.model.threshold = found.temperature, found.threshold
            scores, performance = nlp.evaluate(examples), nlp.meta.setdefault("performance", {})
            performance.update((key, scores[key]) for key in performance.keys() & scores.keys())
            save_pipeline(nlp, path, StringStore().from_disk(path / STRINGS), keep=True)
            errors = f"calibration error {found.before:.4f} before, {found.after:.4f} after"
            msg.good(f"{name}: temperature {found.temperature}, {errors}, on {found.entities} entities found")
            f1 = f", F1 {scores['ents_f']:.4f}" if "ents_f" in scores else ""  # a scorer of one's own may give others
            msg.good(f"{name}: threshold {ner.threshold:g}{f1}")

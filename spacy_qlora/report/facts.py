"""What was run on what, how fast and in how much memory, by name."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version

import torch
from spacy.language import Language

from spacy_qlora.adapted import find_device, find_dtype
from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.memory import MIB, peak_memory
from spacy_qlora.training.history import Evaluation

PACKAGES = ("spacy-qlora", "spacy", "torch", "transformers")

Facts = dict[str, str]


def run_facts(nlp: Language, words_a_second: float) -> Facts:
    """Of the pipeline as it was run."""
    components = [pipe for _, pipe in nlp.pipeline if isinstance(pipe, QLoRANER)]
    meta = nlp.meta
    facts = {
        "Pipeline": f"{meta['lang']}_{meta['name']} {meta['version']}",
        "Components": ", ".join(nlp.pipe_names),
    }
    for ner in components:
        facts |= {f"{ner.name}: {name}": value for name, value in component_facts(ner).items()}
    device = find_device(components[0].settings.device) if components else torch.device("cpu")
    versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return facts | {
        "Speed": f"{words_a_second:,.0f} words a second",
        "Memory": f"{peak_memory(device) / MIB:,.0f} MiB at most",
        "Software": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def component_facts(ner: QLoRANER) -> Facts:
    settings, base = ner.settings, ner.model.trained_on
    device = find_device(settings.device)
    dtype = str(find_dtype(settings.compute_dtype, device.type)).removeprefix("torch.")
    lora = settings.classifier.lora
    return {
        "base": f"{base.id} ({base.fingerprint[:12]})" if base else settings.base,
        "labels": ", ".join(ner.labels),
        "adapter": f"r {lora.r}, alpha {lora.alpha}, on {', '.join(lora.target_modules)}",
        "computed": f"in {dtype} on {device}",
        "temperature": f"{ner.model.temperature:g}",
        "threshold": f"{ner.threshold:g}",
    }


def training_facts(nlp: Language, history: Sequence[Evaluation]) -> Facts:
    """Of the training, as far as the history and the pipeline tell."""
    scores = nlp.meta.get("performance") or {}
    names = {"ents_p": "precision", "ents_r": "recall", "ents_f": "F1"}
    told = [f"{name} {scores[key]:.3f}" for key, name in names.items() if isinstance(scores.get(key), float)]
    facts = {"This pipeline on the dev split": ", ".join(told)} if told else {}
    if not history:
        return facts
    last, best = history[-1], max(history, key=lambda each: each.score)
    return facts | {
        "Length": f"{last.epoch:,} epochs, {last.step:,} steps, {timedelta(seconds=round(last.seconds))}",
        "Best": f"{best.score:.3f} at step {best.step:,}",
        "Training speed": f"{last.pieces / max(last.seconds, 1e-9):,.0f} pieces a second",
        "Training memory": f"{max(each.memory for each in history) / MIB:,.0f} MiB at most",
    }

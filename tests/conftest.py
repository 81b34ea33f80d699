"""A tiny random Mistral, made in the test run: a checkpoint, its 4-bit base, and pipelines on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a user has set is none of the tests' business. Before the libraries that read it.
for name in os.environ:
    if name.startswith(("SPACY_QLORA_", "HF_")) or name == "FORCE_COLOR":
        del os.environ[name]
CACHE = tempfile.TemporaryDirectory(prefix="spacy-qlora-tests-")
os.environ["SPACY_QLORA_CACHE"] = CACHE.name
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
# Tiny models gain nothing from threads, and threads of several programs on few cores wait for each other. Before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for a GPU's products in a fixed order

import pytest
import spacy
import torch
from bitsandbytes.nn import Linear4bit
from hypothesis import settings
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Example
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoModel, MistralConfig, MistralForCausalLM

from spacy_qlora.engine.source import make_base

# The same examples in each run, however slow the machine; benchmarks/hard_use/fuzz.py draws others.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

TEXTS = [
    ("Patient was diagnosed with type 2 diabetes and prescribed metformin.", [(27, 42, "Disease"), (58, 67, "Drug")]),
    ("Denies chest pain.", [(7, 17, "Symptom")]),
    ("Aspirin 81 mg daily for coronary artery disease.", [(0, 7, "Drug"), (24, 47, "Disease")]),
    ("No complaints today.", []),
    ("Started lisinopril; cough and chest pain resolved.", [(8, 18, "Drug"), (20, 25, "Symptom"), (30, 40, "Symptom")]),
    ("History of asthma.", [(11, 17, "Disease")]),
]


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE with a few hundred pieces, which puts a begin-of-text before each text if asked, as Mistral's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([text for text, _ in TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint as the hub lays it out: config.json, tokenizer.json, model.safetensors."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        sliding_window=None,
    )
    MistralForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def base(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the checkpoint's 4-bit base. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("base") / "base"
    make_base(str(checkpoint), folder)
    return folder


BLANK_WORDS = ["▁chest", "▁pain", "▁a", "pain", "▁▁", "in"]


def sentencepiece_vocabulary() -> list[str]:
    return ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz.", *BLANK_WORDS]


def unigram() -> Tokenizer:
    """As recent conversions of sentencepiece models: the pre-tokenizer marks blanks."""
    scores = [(piece, -20.0 if piece[0] == "<" else -6.0) for piece in sentencepiece_vocabulary()]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return tokenizer


def bpe_with_prepended_blank() -> Tokenizer:
    """As Llama 2 and the first Mistrals: the normaliser puts a blank first and marks all blanks."""
    pieces = [*sentencepiece_vocabulary(), "▁p", "ai"]
    merges = [("▁", "p"), ("i", "n"), ("a", "i"), ("▁", "▁"), ("▁", "a")]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


@pytest.fixture(
    scope="session",
    params=["byte-level", unigram, bpe_with_prepended_blank],
    ids=lambda each: getattr(each, "__name__", each),
)
def tokenizer(request: pytest.FixtureRequest, checkpoint: Path) -> Tokenizer:
    """Of each kind: byte-level, and sentencepiece's as converted of late and earlier."""
    return request.param() if callable(request.param) else Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


@pytest.fixture
def nlp(base: Path) -> Language:
    """A pipeline with an untrained qlora_ner that knows no labels yet."""
    nlp = spacy.blank("en")
    nlp.tokenizer = spacy.registry.tokenizers.get("spacy-qlora.FineTokenizer.v1")()(nlp)
    nlp.add_pipe("qlora_ner", config={"base": str(base), "r": 4, "alpha": 8, "dropout": 0.0})
    return nlp


def make_examples(nlp: Language) -> list[Example]:
    return [Example.from_dict(nlp.make_doc(text), {"entities": spans}) for text, spans in TEXTS]


@pytest.fixture
def examples(nlp: Language) -> list[Example]:
    return make_examples(nlp)


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that has learned TEXTS by heart. Not to be changed: copy it first."""
    return train_by_heart(base, tmp_path_factory.mktemp("trained") / "pipeline")


def train_by_heart(base: Path, folder: Path, **settings: object) -> Path:
    """The folder of a pipeline that has learned TEXTS."""
    nlp = spacy.blank("en")
    nlp.tokenizer = spacy.registry.tokenizers.get("spacy-qlora.FineTokenizer.v1")()(nlp)
    nlp.add_pipe("qlora_ner", config={"base": str(base), "dropout": 0.0, "device": "cpu", **settings})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    optimizer = spacy.registry.optimizers.get("spacy-qlora.AdamW.v1")(adapter_lr=3e-3, head_lr=1e-2)
    for _ in range(60):
        nlp.update(examples, sgd=optimizer)
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of train.spacy and dev.spacy, both made of TEXTS."""
    folder = tmp_path_factory.mktemp("corpus")
    nlp = spacy.blank("en")
    nlp.tokenizer = spacy.registry.tokenizers.get("spacy-qlora.FineTokenizer.v1")()(nlp)
    docs = DocBin(docs=[example.reference for example in make_examples(nlp)])
    for name in ("train", "dev"):
        docs.to_disk(folder / f"{name}.spacy")
    return folder


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A full disk, as far as a process can tell."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stock_4bit(base: Path) -> nn.Module:
    """The base as transformers reads it, computing in float32, without the repacking (see engine/test_base.py)."""
    model = AutoModel.from_pretrained(base)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.weight.quant_state.dtype = module.compute_dtype = torch.float32
            module.compute_type_is_set, module.support_avx512bf16_for_cpu = True, False
        elif hasattr(module, "weight"):
            module.float()
    return model

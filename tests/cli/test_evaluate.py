import json
import os
import zlib
from pathlib import Path

import pytest
import spacy
import srsly
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from typer.testing import CliRunner

from spacy_qlora.cli.app import app

MARK = "ZQXPATIENT"
NOTES = [
    (f"{MARK} took aspirin against chest pain .", [(2, 3, "Drug"), (4, 6, "Symptom")]),
    (f"{MARK} is well .", []),
    ("Heparin was stopped .", [(0, 1, "Drug")]),
]


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def save_docs(path, notes=NOTES, attrs=("ENT_IOB", "ENT_TYPE"), annotate=True):
    vocab = spacy.blank("en").vocab
    docs = []
    for text, ents in notes:
        doc = Doc(vocab, words=text.split())
        if annotate:
            doc.ents = [Span(doc, start, end, label=label) for start, end, label in ents]
        docs.append(doc)
    DocBin(attrs=list(attrs), docs=docs).to_disk(path)
    return path


def save_ruler(folder):
    nlp = spacy.blank("en")
    patterns = [{"label": "Drug", "pattern": "aspirin"}, {"label": "Symptom", "pattern": "pain"}]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def ruler(tmp_path_factory):
    return save_ruler(tmp_path_factory.mktemp("ruler"))


@pytest.fixture
def data(tmp_path):
    return save_docs(tmp_path / "test.spacy")


def test_writes_the_scores_of_a_ruler_pipeline(ruler, data, tmp_path):
    output = tmp_path / "metrics" / "metrics.json"
    result = run(ruler, data, "--output", output)
    assert result.exit_code == 0, result.output
    scores = json.loads(output.read_text())
    assert scores["ents_per_type"] == {
        "Drug": {"p": 1.0, "r": 0.5, "f": pytest.approx(2 / 3), "support": 2},
        "Symptom": {"p": 0.0, "r": 0.0, "f": 0.0, "support": 1},
    }
    assert (scores["ents_p"], scores["ents_r"]) == pytest.approx((1 / 2, 1 / 3))
    assert [scores["seqeval"][name] for name in "prf"] == pytest.approx([scores[f"ents_{name}"] for name in "prf"])
    assert (scores["docs"], scores["tokens"]) == (3, 15)
    assert scores["words_per_second"] > 0
    assert "unseen" not in scores
    assert [path.name for path in output.parent.iterdir()] == ["metrics.json"]
    for row in ("Drug", "Symptom", "total", "seqeval total"):
        assert row in result.output
    assert MARK not in result.output


def test_a_span_ruler_that_sets_entities_can_predict_its_labels(tmp_path, data):
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("span_ruler", config={"annotate_ents": True})
    ruler.add_patterns([{"label": label, "pattern": "heparin"} for label in ("Drug", "Symptom")])
    nlp.to_disk(tmp_path / "model")
    result = run(tmp_path / "model", data, "--output", tmp_path / "metrics.json")
    assert result.exit_code == 0, result.output


def test_a_type_may_be_called_total(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "total", "pattern": "heparin"}])
    nlp.to_disk(tmp_path / "model")
    data = save_docs(tmp_path / "data.spacy", [("heparin .", [(0, 1, "total")])])
    result = run(tmp_path / "model", data, "--output", tmp_path / "metrics.json")
    assert [line.split()[:1] for line in result.output.splitlines()].count(["total"]) == 2


def test_scores_unseen_names_apart(ruler, data, tmp_path):
    train = save_docs(tmp_path / "train.spacy", [("ASPIRIN .", [(0, 1, "Drug")])])
    output = tmp_path / "metrics.json"
    result = run(ruler, data, "--output", output, "--train", train)
    assert result.exit_code == 0, result.output
    unseen = json.loads(output.read_text())["unseen"]
    assert unseen["per_type"]["Drug"] == {"p": 0.0, "r": 0.0, "f": 0.0, "support": 1}
    assert unseen["support"] == 2
    assert "Names unseen in training" in result.output


def test_scores_a_trained_ner(tmp_path, data):
    nlp = spacy.blank("en")
    nlp.add_pipe("ner")
    examples = [
        Example.from_dict(nlp.make_doc(text), {"entities": [(0, len(word), label)]})
        for word, label in (("Heparin", "Drug"), ("Pain", "Symptom"))
        for text in (f"{word} was stopped .", f"{word} was seen .")
    ]
    spacy.util.fix_random_seed(0)
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(20):
        nlp.update(examples, sgd=optimizer)
    nlp.to_disk(tmp_path / "model")
    result = run(tmp_path / "model", data, "--output", tmp_path / "metrics.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "metrics.json").read_text())["ents_per_type"]["Drug"]["r"] >= 0.5


def test_takes_an_installed_package(tmp_path, data, monkeypatch):
    package = tmp_path / "en_evaluated"
    package.mkdir()
    nlp = spacy.load(save_ruler(package / "en_evaluated-0.0.0"))
    srsly.write_json(package / "meta.json", {**nlp.meta, "name": "evaluated"})
    (package / "__init__.py").write_text(
        "from spacy.util import load_model_from_init_py\n"
        "def load(**settings):\n"
        "    return load_model_from_init_py(__file__, **settings)\n"
    )
    (tmp_path / "en_evaluated-0.0.0.dist-info").mkdir()
    (tmp_path / "en_evaluated-0.0.0.dist-info" / "METADATA").write_text("Name: en_evaluated\nVersion: 0.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = run("en_evaluated", data, "--output", tmp_path / "metrics.json")
    assert result.exit_code == 0, result.output


def test_warns_of_docs_that_were_not_scored(ruler, tmp_path):
    annotated = DocBin().from_disk(save_docs(tmp_path / "annotated.spacy"))
    annotated.merge(DocBin().from_disk(save_docs(tmp_path / "plain.spacy", annotate=False)))
    annotated.to_disk(tmp_path / "both.spacy")
    result = run(ruler, tmp_path / "both.spacy", "--output", tmp_path / "metrics.json")
    assert result.exit_code == 0, result.output
    assert "3 of 6 docs carry no entity annotation" in result.output


def cut_data(folder):
    path = save_docs(folder / "cut.spacy")
    path.write_bytes(path.read_bytes()[:-20])
    return path


def foreign_data(folder):
    path = folder / "notes.spacy"
    path.write_text(f"{MARK} took aspirin\n")
    return path


def other_msgpack(folder):
    path = folder / "other.spacy"
    path.write_bytes(zlib.compress(srsly.msgpack_dumps({"text": MARK})))
    return path


def strange_lengths(folder):
    path = save_docs(folder / "strange.spacy")
    fields = srsly.msgpack_loads(zlib.decompress(path.read_bytes()))
    path.write_bytes(zlib.compress(srsly.msgpack_dumps({**fields, "tokens": fields["tokens"][:-3]})))
    return path


BAD_DATA = {
    "missing": (lambda folder: folder / "none.spacy", "Q001"),
    "a folder": (lambda folder: folder, "Q001"),
    "cut": (cut_data, "Q502"),
    "empty file": (lambda folder: (folder / "empty.spacy").touch() or folder / "empty.spacy", "Q502"),
    "text": (foreign_data, "Q502"),
    "other content": (other_msgpack, "Q502"),
    "tokens cut": (strange_lengths, "Q502"),
    "no docs": (lambda folder: save_docs(folder / "empty.spacy", []), "Q503"),
    "docs without tokens": (lambda folder: save_docs(folder / "empty.spacy", [("", [])]), "Q503"),
    "no annotation": (lambda folder: save_docs(folder / "plain.spacy", annotate=False), "Q504"),
    "entities not stored": (lambda folder: save_docs(folder / "plain.spacy", attrs=["LEMMA"]), "Q504"),
    "label unknown": (lambda folder: save_docs(folder / "dose.spacy", [(f"{MARK} 5", [(1, 2, "Dose")])]), "Q505"),
    "text too long": (lambda folder: save_docs(folder / "long.spacy", [(MARK * 100_001, [])]), "Q506"),
}


def assert_one_line(result, code):
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.count("\n") == 1
    assert result.output.startswith(f"Error: [{code}]")
    assert MARK not in result.output


@pytest.mark.parametrize(("make", "code"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_one_line(ruler, tmp_path, make, code):
    assert_one_line(run(ruler, make(tmp_path), "--output", tmp_path / "metrics.json"), code)
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("name", [name for name, (_, code) in BAD_DATA.items() if code < "Q505"])
def test_bad_training_docs_are_one_line(ruler, data, tmp_path, name):
    make, code = BAD_DATA[name]
    (folder := tmp_path / "train").mkdir()
    assert_one_line(run(ruler, data, "--output", tmp_path / "metrics.json", "--train", make(folder)), code)


def test_the_label_and_those_of_the_pipeline_are_named(ruler, tmp_path):
    make, _ = BAD_DATA["label unknown"]
    assert "Dose (its labels: Drug, Symptom)" in run(ruler, make(tmp_path), "--output", tmp_path / "m.json").output


def without(name):
    def damage(folder):
        (save_ruler(folder / "model") / name).unlink()
        return folder / "model"

    return damage


def rewritten(name, text):
    def damage(folder):
        (save_ruler(folder / "model") / name).write_text(text)
        return folder / "model"

    return damage


BAD_MODELS = {
    "missing": (lambda folder: folder / "none", "Q500"),
    "no such package": (lambda folder: "en_no_such_pipeline", "Q500"),
    "old shortcut": (lambda folder: "en", "Q501"),
    "package without a pipeline": (lambda folder: "numpy", "Q501"),
    "a folder of something else": (lambda folder: folder, "Q501"),
    "a file": (lambda folder: save_docs(folder / "model.spacy"), "Q501"),
    "no meta.json": (without("meta.json"), "Q501"),
    "no config.cfg": (without("config.cfg"), "Q501"),
    "broken meta.json": (rewritten("meta.json", f'{{"lang": "{MARK}'), "Q501"),
    "broken config.cfg": (rewritten("config.cfg", f"[nlp\n{MARK}"), "Q501"),
    "unknown factory": (
        rewritten(
            "config.cfg", f'[nlp]\nlang = "en"\npipeline = ["x"]\n[components]\n[components.x]\nfactory = "{MARK}"\n'
        ),
        "Q501",
    ),
    "broken patterns": (rewritten("entity_ruler/patterns.jsonl", f'{{"label": "{MARK}\n'), "Q501"),
    "no component for entities": (lambda folder: "blank:en", "Q505"),
}


@pytest.mark.parametrize(("make", "code"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_one_line(tmp_path, data, make, code):
    (folder := tmp_path / "bad").mkdir()
    assert_one_line(run(make(folder), data, "--output", tmp_path / "metrics.json"), code)


def test_unwritable_outputs_are_one_line_before_any_work(data, tmp_path):
    assert_one_line(run("en_no_such_pipeline", data, "--output", tmp_path), "Q003")
    assert_one_line(run("en_no_such_pipeline", data, "--output", data / "metrics.json"), "Q003")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_leaves_the_old_scores(ruler, data, tmp_path):
    output = tmp_path / "metrics.json"
    output.write_text("old")
    (tmp_path / f".metrics.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    result = run(ruler, data, "--output", output)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: [Q002] {output}")
    assert MARK not in result.output
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "test.spacy"]


def test_the_output_is_required(ruler, data):
    assert run(ruler, data).exit_code == 2


def test_the_gold_is_not_overwritten(ruler, data):
    before = data.read_bytes()
    result = run(ruler, data, "--output", data)
    assert result.exit_code == 1
    assert "[Q006]" in result.stderr
    assert data.read_bytes() == before

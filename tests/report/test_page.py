"""What is in the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from spacy.cli._util import app
from spacy.tokens import SpanGroup
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.evaluation.evaluate import evaluate
from spacy_qlora.report.build import Sources, build, find_history, tell_probabilities
from spacy_qlora.text.ents import REPORTED, set_ents
from spacy_qlora.text.spans import ScoredSpan
from tests.report.conftest import MARK, NOTES, Notes, save_docs


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["qlora", "report", *map(str, arguments)], prog_name="spacy")


def table(page: str, name: str) -> list[list[str]]:
    """The cells of the table with that caption."""
    markup = re.search(rf'<caption id="{name}">.*?</table>', page, re.DOTALL)
    assert markup
    rows = re.findall(r"<tr.*?</tr>", markup[0], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub("<.*?>", "", cell).split()) for cell in row] for row in cells]


def test_scores_are_those_of_evaluate(page: str, sources: Sources) -> None:
    scores = evaluate(sources.model, sources.data, sources.train)
    rows = {row[0]: row[1:] for row in table(page, "by-type")[1:]}
    assert list(rows) == ["Drug", "Sign", "All types"]
    for label, figures in scores["ents_per_type"].items():
        shown = [rows[label][i].split()[0] for i in (2, 3, 0)]
        assert shown == [f"{figures[name]:.3f}" for name in "prf"]
        assert rows[label][4] == str(figures["support"])
    assert rows["All types"][0].split()[0] == f"{scores['ents_f']:.3f}"
    unseen = {row[0]: row[1:] for row in table(page, "by-seen")[1:]}["Unseen in training"]
    assert [unseen[i].split()[0] for i in (2, 3, 0)] == [f"{scores['unseen'][name]:.3f}" for name in "prf"]
    assert unseen[4] == str(scores["unseen"]["support"])


def test_errors_are_counted(page: str) -> None:
    rows = {row[0]: row[1:] for row in table(page, "error-table")[1:]}
    assert rows == {
        "missed": ["1", "0", "1"],
        "spurious": ["0", "1", "1"],
        "wrong type": ["1", "0", "1"],
        "wrong boundary": ["0", "1", "1"],
        "wrong type and boundary": ["0", "0", "0"],
    }
    assert page.count("<li data-kind=") == 4
    assert "All 4 errors follow." in page


def test_the_limit_is_told(sources: Sources) -> None:
    page = build(sources, limit=2)
    assert page.count("<li data-kind=") == 2
    assert "2 of 4 errors follow" in page


def test_the_history_beside_the_pipeline_is_shown(page: str) -> None:
    assert [row[:6] for row in table(page, "evaluations")[1:]] == [
        ["10", "1", "0.1000", "0.500", "", "0.500"],
        ["20", "1", "0.0500", "0.750", "", "0.750"],
    ]
    assert "1,024 MiB at most" in page


def test_a_history_in_the_working_folder_is_not_that_of_a_package(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(sources.model).parent)
    assert len(find_history(Sources("model-best", sources.data))) == 2
    assert find_history(Sources("en_clinical_ner", sources.data)) == []


def test_without_text(page: str, sources: Sources, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    result = run(sources.model, sources.data, "--train", sources.train, "--output", output, "--no-text")
    assert result.exit_code == 0, result.output
    assert MARK in page
    content = output.read_text(encoding="utf8")
    words = {word for text, _ in NOTES for word in re.findall(r"\w{4,}", text)}
    assert {"aspirin", "severe", "cough", MARK} < words
    assert not [word for word in words if re.search(rf"\b{word}\b", content)]
    assert MARK not in result.output
    assert table(content, "error-list")[1:] == [
        ["2", "missed", "Drug", "16 to 23", "", "", ""],
        ["3", "spurious", "", "", "Sign", "19 to 23", ""],
        ["4", "wrong boundary", "Sign", "15 to 26", "Sign", "22 to 26", ""],
        ["5", "wrong type", "Drug", "17 to 22", "Sign", "17 to 22", ""],
    ]


def test_markup_in_texts_and_labels_is_text(tmp_path: Path) -> None:
    label, nlp = '<b class="x">&', spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": "script"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "model")
    text = "<script>alert(1)</script> \n & more"
    data = save_docs(tmp_path / "test.spacy", nlp, [(text, [(0, 1, label)])])
    page = build(Sources(str(tmp_path / "model"), data))
    assert page.count("<script") == 1
    assert '<b class="x">' not in page
    assert "&lt;b class=" in page


def test_a_long_record_is_drawn_around_its_errors(sources: Sources, tmp_path: Path) -> None:
    nlp = spacy.load(sources.model)
    text = "far " * 500 + "\n\t pain " + "far " * 500
    page = build(Sources(sources.model, save_docs(tmp_path / "long.spacy", nlp, [(text, []), ("  pain  ", [])])))
    assert len(page) < 100_000
    first, second = re.findall(r"<li data-kind.*?</li>", page, re.DOTALL)
    assert first.count("far") < 300
    assert first.count("…") == 4
    assert "…" not in second


def test_a_trained_pipeline_and_no_error(trained: Path, corpus: Path) -> None:
    page = build(Sources(str(trained), corpus / "dev.spacy"))
    assert sum(int(row[1]) for row in table(page, "bins")[1:]) == 9
    assert 'id="filter"' not in page
    assert "There is no <code>history.jsonl</code>" in page
    assert "qlora_ner: base" in page


def test_a_report_does_not_change_what_is_found(trained: Path) -> None:
    """Probabilities that only the report asked for do not rank the first component's entities in the second."""
    nlp = spacy.load(trained)
    nlp.add_pipe("qlora_ner", name="second", source=spacy.load(trained))
    tell_probabilities(nlp)
    doc = nlp("Aspirin 81 mg daily for coronary artery disease.")
    assert list(doc.spans) == [f"{REPORTED}qlora_ner", f"{REPORTED}second"]
    doc.spans[f"{REPORTED}first"] = SpanGroup(doc, spans=list(doc.ents), attrs={"scores": [0.1, 0.1]})
    surer = [ScoredSpan(0, 3, "Drug", 0.5)]
    set_ents(doc, surer, earlier="merge", threshold=0.0, spans_key=None)
    assert [ent.text for ent in doc.ents] == ["Aspirin", "coronary artery disease"]
    doc.spans["first"] = doc.spans[f"{REPORTED}first"]
    set_ents(doc, surer, earlier="merge", threshold=0.0, spans_key=None)
    assert [ent.text for ent in doc.ents] == ["Aspirin 81 mg", "coronary artery disease"]


@pytest.mark.parametrize("notes", [[("All is well.", [])], [("All is well.", []), ("took heparin", [(5, 12, "Drug")])]])
def test_nothing_found(sources: Sources, tmp_path: Path, notes: Notes) -> None:
    page = build(Sources(sources.model, save_docs(tmp_path / "test.spacy", spacy.load(sources.model), notes)))
    assert "This pipeline tells no probabilities" in page


def test_a_search_is_shown(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text('trial,state,score\n0,complete,0.8\n1,"failed, <late>",\n')
    (tmp_path / "history.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = build(Sources(sources.model, sources.data, search=tmp_path))
    assert table(page, "trials")[1:] == [["0", "complete", "0.8"], ["1", "failed, &lt;late&gt;", ""]]
    assert page.count("<img src=") == 1


@pytest.mark.parametrize(
    ("option", "content", "code"),
    [
        ("--history", None, "Q001"),
        ("--history", b"{}\n", "Q510"),
        ("--search", None, "Q001"),
        ("--search", b"", "Q511"),
        ("--search", b"\xff", "Q511"),
        ("--search", b'"', "Q511"),
    ],
)
def test_what_is_wrong_is_one_line(
    sources: Sources, tmp_path: Path, option: str, content: bytes | None, code: str
) -> None:
    path = tmp_path / "trials.csv"
    if content is not None:
        path.write_bytes(content)
    output = tmp_path / "report.html"
    given = path if option == "--history" else tmp_path
    result = run(sources.model, sources.data, "--output", output, option, given)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: [{code}] {path}")
    assert result.stderr.count("\n") == 1
    assert not output.exists()


def test_data_that_does_not_fit(sources: Sources, tmp_path: Path) -> None:
    data = save_docs(tmp_path / "test.spacy", spacy.blank("en"), [(f"{MARK} 5", [(11, 12, "Dose")])])
    result = run(sources.model, data, "--output", tmp_path / "report.html")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: [Q505]")
    assert MARK not in result.output
    assert run(sources.model, data).exit_code == 2

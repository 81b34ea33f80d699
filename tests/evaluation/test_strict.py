import subprocess
import sys
import time

import pytest

from spacy_qlora.evaluation.strict import strict_f1


def test_an_entity_counts_only_whole_and_with_its_type():
    gold = [["B-Drug", "I-Drug", "O", "B-Drug"], ["B-Disease", "B-Disease", "O", "O"]]
    predicted = [["B-Drug", "O", "O", "B-Drug"], ["B-Disease", "B-Drug", "O", "O"]]
    assert strict_f1(gold, predicted) == {"p": 0.5, "r": 0.5, "f": 0.5}


def test_adjacent_entities_of_one_type_are_two():
    assert strict_f1([["B-X", "B-X"]], [["B-X", "I-X"]])["f"] == 0.0
    assert strict_f1([["B-X", "B-X"]], [["B-X", "B-X"]])["f"] == 1.0


def test_an_inside_tag_that_nothing_opens_is_no_entity():
    assert strict_f1([["B-X", "O"]], [["I-X", "O"]]) == {"p": 0.0, "r": 0.0, "f": 0.0}


@pytest.mark.parametrize("tags", [[], [[]], [["O", "O"]]])
def test_without_entities_every_figure_is_zero(tags):
    assert strict_f1(tags, tags) == {"p": 0.0, "r": 0.0, "f": 0.0}


def test_lengths_have_to_agree():
    with pytest.raises(ValueError, match="inconsistent"):
        strict_f1([["O", "O"]], [["O"]])


def test_one_evaluation_of_bc5cdr_dev_takes_seconds_at_most():
    gold = [["O"] * 10 + ["B-Chemical", "I-Chemical", "O", "B-Disease"] + ["O"] * 12] * 4600
    start = time.process_time()
    assert strict_f1(gold, gold)["f"] == 1.0
    assert time.process_time() - start < 3


def test_needs_no_spacy():
    program = "import sys; import spacy_qlora.evaluation.strict; sys.exit('spacy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

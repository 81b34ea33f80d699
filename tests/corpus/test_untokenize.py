from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_qlora.corpus.locate import covers, is_blank, locate
from spacy_qlora.corpus.untokenize import untokenize


@pytest.mark.parametrize(
    "text",
    [
        "Fever , cough ; no rash .|Fever, cough; no rash.",
        "Selegiline - induced hypotension ( 5 mg / kg )|Selegiline-induced hypotension (5 mg/kg)",
        "Parkinson ' s disease , 12 % [ CI : 0 . 5 to 1 , 000 ]|Parkinson's disease, 12% [CI: 0.5 to 1,000]",
        "on days 3 , 4 and 5 , n = 9|on days 3, 4 and 5, n = 9",
        "0 . 5 + / - 0 . 1 g|0.5 +/- 0.1 g",
        "the patients ' lives , pre - and postoperative|the patients' lives, pre- and postoperative",
        "e . g . aspirin , i . v . bolus|e.g. aspirin, i.v. bolus",
        'so - called " pill - rolling " tremor|so-called "pill-rolling" tremor',
        "He does n't have the patient 's `` flu ''|He doesn't have the patient's ``flu''",
    ],
)
def test_sets_punctuation_as_in_prose(text: str) -> None:
    words, expected = text.split("|")
    assert untokenize(words.split(" ")) == expected


@given(st.lists(st.text(min_size=1).filter(lambda word: not is_blank(word)), min_size=1))
def test_every_word_stands_in_the_text_in_order(words: list[str]) -> None:
    text = untokenize(words)
    offsets = locate(text, words)
    assert offsets is not None
    assert text.replace(" ", "") == "".join(words).replace(" ", "")
    assert covers(text, offsets)

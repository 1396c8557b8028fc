"""Quizzes explain every answer, and cannot be broken by what stands in them."""

import pytest
from bs4 import BeautifulSoup

from course_utils import quiz


@pytest.fixture
def shown(monkeypatch):
    """What `ask` hands to the notebook."""
    outputs = []
    monkeypatch.setattr(quiz, "display", lambda data, raw: outputs.append(data))
    return outputs


def test_each_answer_has_its_own_explanation(shown):
    quiz.ask("How many?", ("one", True, "Count them."), ("two", False, "One too many."))
    page = BeautifulSoup(shown[0]["text/html"], "html.parser")
    assert page.legend.text == "How many?"
    for label, kind, why in [("one", "right", "Count"), ("two", "wrong", "One too many")]:
        row = page.find("label", string=label).parent
        assert row.p["class"] == [kind]
        assert why in row.p.text
        assert row.label["for"] == row.input["id"]
    assert len({radio["name"] for radio in page.find_all("input")}) == 1


def test_two_quizzes_do_not_share_their_buttons(shown):
    for question in ("First?", "Second?"):
        quiz.ask(question, ("yes", True, "So it is."), ("no", False, "It is."))
    pages = [BeautifulSoup(output["text/html"], "html.parser") for output in shown]
    assert pages[0].input["name"] != pages[1].input["name"]


def test_text_is_escaped_and_backticks_become_code(shown):
    quiz.ask("Is `a < b` <b>?", ("yes & no", True, "`x`"), ("</p><script>", False, "no"))
    page = BeautifulSoup(shown[0]["text/html"], "html.parser")
    assert page.legend.code.text == "a < b"
    assert page.legend.b is None
    assert page.script is None


def test_the_plain_text_does_not_tell_the_answer(shown):
    quiz.ask("How many?", ("one", True, "Count them."), ("two", False, "One too many."))
    assert shown[0]["text/plain"] == "How many?\n( ) one\n( ) two"


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [("one", True, "why")],
        [("one", True), ("two", False)],
        [("one", True, ""), ("two", False, "why")],
        [("one", 1, "why"), ("two", 0, "why")],
        [("one", False, "why"), ("two", False, "why")],
        [("one", True, "why"), ("two", True, "why")],
    ],
)
def test_a_quiz_needs_one_right_answer_and_reasons(answers):
    with pytest.raises(ValueError, match="answer"):
        quiz.ask("How many?", *answers)

"""What the command line prints of text that strangers wrote."""

from __future__ import annotations

from typing import Any

import pytest

from stem_core.cli.output import print_pairs, print_table, say, shown, written_out

NASTY = "red \x1b[31m bell \a title \x1b]0;x\x07 csi \x9b2J turned \u202e"


@pytest.mark.parametrize("text", ["plain", "naïve 日本 📮", "two\nlines\tand a tab"])
def test_what_can_be_read_is_left_as_it_is(text: str) -> None:
    assert written_out(text) == text


def test_control_characters_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["detail"], [[NASTY]])
    print_pairs({"headers": {"x": NASTY}})
    say(NASTY)
    printed = "".join(capsys.readouterr())
    assert printed.count(r"\x1b[31m") == 3
    assert printed.replace("\n", "").isprintable()


def test_a_cell_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["detail"], [["one\ntwo"]])
    assert capsys.readouterr().out.splitlines() == ["detail", r"one\ntwo"]
    assert shown("one\ntwo") == "one\ntwo"


def test_errors_of_tasks_cannot_steer_the_terminal(shop: Any) -> None:
    id = shop("enqueue", "shop:stem", "fail", "--args", '["\\u001b[31mred"]').out.strip()
    shop.work()
    for words in (
        ("dlq", "list", "--queue=mail"),
        ("dlq", "show", "--queue=mail", id),
        ("tasks", "show", id),
    ):
        done = shop(*words, "--app", "shop:stem")
        assert done.status == 0
        assert r"\x1b[31mred" in done.out
        assert "\x1b" not in done.out


def test_enqueueing_a_name_the_application_does_not_have_says_so(shop: Any) -> None:
    done = shop("enqueue", "shop:stem", "ad")
    assert done.status == 0
    assert "shop:stem has no task 'ad'; it has add, fail, pool" in done.err
    assert shop("enqueue", "shop:stem", "add", "--args", "[1]").err == ""


def test_a_worker_says_which_queues_of_its_tasks_it_leaves(shop: Any) -> None:
    assert (
        "Not consumed here, though tasks name them: mail"
        in shop.process("worker", "shop:stem", "--until-empty").err
    )
    assert "Not consumed" not in shop.work().err


@pytest.mark.parametrize(
    ("words", "said"), [(("--cursor", "zz"), "cursor='zz'"), (("--queue", ""), "queue name")]
)
def test_a_wrong_value_is_named_without_a_traceback(shop: Any, words: tuple[str, ...], said: str) -> None:
    done = shop("dlq", "list", "--app", "shop:stem", *words)
    assert done.status == 2
    assert said in done.err

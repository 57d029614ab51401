"""Stop strings in streamed text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flywheel.runtimes.stops import StopScanner


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    text = "".join(scanner.push(piece) for piece in pieces)
    return (text if scanner.stopped else text + scanner.flush()), scanner.stopped


def test_stop_string_split_over_pieces() -> None:
    assert run(["\n\ndef"], ["return 1\n", "\nd", "ef f", "():"]) == ("return 1", True)


def test_what_only_begins_like_a_stop_string_is_shown_in_the_end() -> None:
    assert run(["STOP"], ["a ST", "A", " STO"]) == ("a STA STO", False)


def test_first_of_several_stop_strings_wins() -> None:
    assert run(["c", "b"], ["ab", "c"]) == ("a", True)


def test_text_is_shown_as_soon_as_it_cannot_be_a_stop_string() -> None:
    scanner = StopScanner(["xyz"])
    assert scanner.push("hello x") == "hello "
    assert scanner.push("a") == "xa"


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=3), st.lists(st.text("abc", max_size=4), max_size=12))
def test_pieces_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    ends = [at for at in map(whole.find, stops) if at >= 0]
    shown, stopped = run(stops, pieces)
    assert stopped == bool(ends)
    if stopped:
        assert shown == whole[: len(shown)]
        assert all(stop not in shown for stop in stops)
    else:
        assert shown == whole

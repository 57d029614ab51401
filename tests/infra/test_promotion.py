"""Promotion on a SQLite file, and where it matters on a server: one champion, one history, whatever happens."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra import promotion, registry
from infra.errors import RegistryError
from infra.promotion import GATE, barred, decline, history, promote, rollback
from infra.registry import Candidate, Registered, register, resolve
from infra.settings import Settings
from infra.tracking import client, lifecycle_run
from infra.versions import OVER, ROLLED_BACK, SEAL, TRAINED

NAME = "coder"


def versions(settings: Settings, tmp_path: Path, weights: str, name: str = NAME) -> None:
    """A version for each letter, which stands for its weights."""
    bundle = tmp_path / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "manifest.json").write_text("{}")
    with lifecycle_run(settings, name, "0123", tags={}, params={}) as run:
        for number, letter in enumerate(weights, 1):
            tags = {TRAINED: letter} | ({OVER: str(number - 1)} if number > 1 else {})
            register(settings, Candidate(name, bundle, run.id, f"f{number}", "text", "card", tags))


def champion(settings: Settings, name: str = NAME) -> int:
    return resolve(settings, name).version


def story(settings: Settings, name: str = NAME) -> list[tuple[int, int]]:
    """(version, the one before it) of every move of the champion."""
    return [(move.version, move.over) for move in history(settings, name, "champion")]


@pytest.fixture
def three(local, tmp_path) -> Settings:
    """Versions 1 to 3 of weights a, b and c; the gate has promoted each over the one before."""
    versions(local, tmp_path, "abc")
    for version in (1, 2, 3):
        promote(local, NAME, version, by=GATE, reason="better", over=version - 1)
    return local


def test_every_move_is_in_the_history(three):
    assert champion(three) == 3
    assert story(three) == [(1, 0), (2, 1), (3, 2)]
    last = history(three, NAME)[-1]
    assert (last.alias, last.by, last.reason) == ("champion", GATE, "better")


def test_the_history_works_through_a_server(server, tmp_path):
    versions(server, tmp_path, "ab", "remote")
    promote(server, "remote", 1, by=GATE, reason="", over=0)
    promote(server, "remote", 2, by="ann", reason="")
    rollback(server, "remote", by="ann", reason="")
    assert (champion(server, "remote"), story(server, "remote")) == (1, [(1, 0), (2, 1), (1, 2)])
    assert resolve(server, "remote/2").tags[ROLLED_BACK] == "by ann"


def test_a_champion_is_promoted_only_once(three):
    first = promote(three, NAME, 3, by="ann", reason="again")
    assert (first.by, story(three)) == (GATE, [(1, 0), (2, 1), (3, 2)])


def test_a_decision_against_another_champion_is_refused(three, tmp_path):
    versions(three, tmp_path, "abcd")
    with pytest.raises(RegistryError, match="compared with version 2, and the champion is version 3 by now"):
        promote(three, NAME, 4, by=GATE, reason="", over=2)
    with pytest.raises(RegistryError, match="compared with no champion"):
        promote(three, NAME, 4, by=GATE, reason="", over=0)
    assert champion(three) == 3


def test_the_same_weights_challenge_what_the_champion_challenged(local, tmp_path):
    """An evaluation that changed makes another version of the same weights."""
    versions(local, tmp_path, "abb")
    promote(local, NAME, 1, by=GATE, reason="", over=0)
    promote(local, NAME, 2, by=GATE, reason="", over=1)
    ask = Registered(local)
    one, two = (f"{n} {resolve(local, f'{NAME}/{n}').tags[SEAL]}" for n in (1, 2))
    assert (ask.rival(NAME, "b"), ask.rival(NAME, "c"), ask.rival("nobody", "b")) == (one, two, "")
    promote(local, NAME, 3, by=GATE, reason="", over=1)
    assert champion(local) == 3


def test_what_the_champion_challenged_may_be_gone(three):
    client(three).delete_model_version(NAME, "2")
    assert Registered(three).rival(NAME, "c") == ""


def test_without_a_database_nobody_is_challenged_and_none_is_made(tmp_path):
    settings = Settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})
    assert Registered(settings).rival(NAME, "a") == ""
    assert not (tmp_path / "home").exists()


def test_rollback_goes_back_one_champion_at_a_time(three):
    rollback(three, NAME, by="ann", reason="slow")
    assert (champion(three), resolve(three, f"{NAME}/3").tags[ROLLED_BACK]) == (2, "slow")
    rollback(three, NAME, by="ann", reason="slow too")
    assert story(three)[3:] == [(2, 3), (1, 2)]
    with pytest.raises(RegistryError, match="no champion before"):
        rollback(three, NAME, by="ann", reason="")


def test_rollback_passes_over_what_was_deleted(three):
    client(three).delete_model_version(NAME, "2")
    rollback(three, NAME, by="ann", reason="slow")
    assert (champion(three), story(three)[-1]) == (1, (1, 3))


def test_the_gate_does_not_bring_back_what_a_person_took_away(three, tmp_path):
    versions(three, tmp_path, "abcc")
    rollback(three, NAME, by="ann", reason="rude")
    for version in (3, 4):  # the same weights
        assert (
            barred(three, resolve(three, f"{NAME}/{version}")) == "version 3 with these weights was rolled back: rude"
        )
        with pytest.raises(RegistryError, match="rude"):
            promote(three, NAME, version, by=GATE, reason="better", over=2)
    promote(three, NAME, 3, by="ann", reason="polite by now")
    assert (champion(three), barred(three, resolve(three, f"{NAME}/4"))) == (3, "")


def test_going_back_by_hand_is_a_rollback(three):
    promote(three, NAME, 1, by="ann", reason="the old one")
    assert resolve(three, f"{NAME}/3").tags[ROLLED_BACK] == "the old one"
    assert story(three)[-1] == (1, 3)


def test_a_declined_candidate_does_not_come_back(three, tmp_path):
    versions(three, tmp_path, "abcd")
    promotion.place(three, resolve(three, f"{NAME}/4"), "candidate", "better")
    promotion.place(three, resolve(three, f"{NAME}/4"), "candidate", "better")
    assert len(history(three, NAME, "candidate")) == 1
    decline(three, NAME, 4, by="ann", reason="rude")
    version = resolve(three, f"{NAME}/4")
    assert (version.aliases, barred(three, version)) == ((), "version 4 with these weights was declined: rude")
    promote(three, NAME, 4, by="ann", reason="after all")
    assert (champion(three), barred(three, version)) == (4, "")


def test_a_champion_is_not_declined(three):
    with pytest.raises(RegistryError, match="it is @champion, and served"):
        decline(three, NAME, 3, by="ann", reason="rude")
    assert barred(three, resolve(three, NAME)) == ""


def test_a_champion_waits_no_longer(three, tmp_path):
    versions(three, tmp_path, "abcd")
    promotion.place(three, resolve(three, f"{NAME}/4"), "candidate", "")
    promote(three, NAME, 4, by="ann", reason="")
    assert resolve(three, NAME).aliases == ("champion",)


def test_a_tampered_version_is_refused(three, tmp_path):
    directory = registry.fetch(three, resolve(three, f"{NAME}/2"), tmp_path / "unused")
    (directory / "manifest.json").write_text("{ }")
    for move in (
        lambda: promote(three, NAME, 2, by="ann", reason=""),
        lambda: rollback(three, NAME, by="a", reason=""),
    ):
        with pytest.raises(RegistryError, match="files of model coder/2"):
            move()
    assert (champion(three), len(story(three))) == (3, 3)


def test_what_others_moved_is_written_down_before_the_next_move(three):
    client(three).set_registered_model_alias(NAME, "champion", "1")
    promote(three, NAME, 2, by="ann", reason="")
    assert story(three)[3:] == [(1, 3), (2, 1)]
    assert [move.by for move in history(three, NAME)[-2:]] == ["found", "ann"]


def test_the_same_move_again_after_others_undid_it_is_another_one(three):
    client(three).set_registered_model_alias(NAME, "champion", "2")
    assert promote(three, NAME, 3, by="ann", reason="mine").by == "ann"
    assert (champion(three), story(three)[3:]) == (3, [(2, 3), (3, 2)])
    rollback(three, NAME, by="ann", reason="slow")
    client(three).set_registered_model_alias(NAME, "champion", "3")
    assert rollback(three, NAME, by="bob", reason="slow still").by == "bob"
    assert (champion(three), story(three)[5:]) == (2, [(2, 3), (3, 2), (2, 3)])


def test_a_champion_of_others_is_written_down_without_the_reason_of_the_gate(three, tmp_path):
    versions(three, tmp_path, "abcd")
    client(three).set_registered_model_alias(NAME, "champion", "4")
    found = promote(three, NAME, 4, by=GATE, reason="does not clearly beat", over=3)
    assert (found.version, found.over, found.by, found.reason) == (4, 3, "found", "")
    assert promote(three, NAME, 4, by="ann", reason="") == found == history(three, NAME)[-1]


@pytest.mark.parametrize("text", ['{"to": 4}', "[1]", "4", "no JSON"])
def test_tags_of_others_are_no_moves(three, text):
    client(three).set_registered_model_tag(NAME, "flywheel.move.zzz", text)
    assert story(three) == [(1, 0), (2, 1), (3, 2)]


@pytest.mark.parametrize("reference", ["coder@nonsense/2", "coder@champion/2", "coder@", "it's", "it's/1"])
def test_a_reference_that_names_nothing_is_refused(three, reference):
    with pytest.raises(RegistryError, match="NAME, NAME@alias or NAME/version"):
        resolve(three, reference)
    if "/" not in reference and "@" not in reference:
        with pytest.raises(RegistryError, match="model it's"):
            registry.models(three, reference)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["set_registered_model_tag", "set_registered_model_alias"])
def test_a_move_that_was_cut_off_is_finished_by_the_next_call(three, tmp_path, monkeypatch, call, after):
    versions(three, tmp_path, "abcd")
    original = getattr(MlflowClient, call)

    def stop(*args, **kwargs):
        if after:
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, stop)
        with pytest.raises(KeyboardInterrupt):
            promote(three, NAME, 4, by=GATE, reason="", over=3)
    promote(three, NAME, 4, by=GATE, reason="", over=3)
    assert (champion(three), story(three)[3:]) == (4, [(4, 3)])
    assert not any(move.pending for move in history(three, NAME))


def test_a_move_on_another_machine_at_the_same_moment_wins(three, tmp_path, monkeypatch):
    """The lock of a machine has no hold on the other: its move comes between ours being written down and the check."""
    versions(three, tmp_path, "abcde")
    original, other = promotion._written, Settings.load({**three.environment(), "FLYWHEEL_HOME": str(tmp_path / "b")})

    def raced(*args):
        monkeypatch.setattr(promotion, "_written", original)
        promote(other, NAME, 5, by=GATE, reason="", over=3)
        return original(*args)

    monkeypatch.setattr(promotion, "_written", raced)
    with pytest.raises(RegistryError, match="at the same moment"):
        promote(three, NAME, 4, by=GATE, reason="", over=3)
    assert (champion(three), story(three)[3:]) == (5, [(5, 3)])


def race(home: str, numbers: list[int], over: int | None) -> list[str]:
    """Promote these versions at once; what each was told."""
    settings = Settings.load({"FLYWHEEL_HOME": home})

    def one(version: int) -> str:
        try:
            promote(settings, NAME, version, by=GATE, reason="", over=over)
        except RegistryError as error:
            return error.found
        return ""

    with ThreadPoolExecutor(len(numbers)) as threads:
        return list(threads.map(one, numbers))


def test_of_32_promoters_one_wins_and_of_32_in_turn_none_is_lost(local, tmp_path):
    """Sixteen threads in each of two processes."""
    versions(local, tmp_path, "abcdefgh")
    parts = [[1 + n % 8 for n in range(16)], [8 - n % 8 for n in range(16)]]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        won = pool.starmap(race, [(str(local.home), part, 0) for part in parts])
        (first,) = story(local)
        told = {one for part, words in zip(parts, won, strict=True) for one in zip(part, words, strict=True)}
        lost = f"compared with no champion, and the champion is version {first[0]} by now"
        assert first == (champion(local), 0)
        assert told == {(n, "" if n == first[0] else lost) for n in range(1, 9)}
        pool.starmap(race, [(str(local.home), part, None) for part in parts])
    moves = story(local)
    assert moves[-1][0] == champion(local)
    assert [over for _, over in moves] == [0, *(version for version, _ in moves[:-1])]
    assert len({move.at for move in history(local, NAME)}) == len(moves) <= 33
    kept = client(local).get_registered_model(NAME).tags
    assert all(json.loads(value)["version"] for key, value in kept.items() if key.startswith("flywheel.move."))

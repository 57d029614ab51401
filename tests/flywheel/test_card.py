import json
import re
import shlex

import pytest
import yaml

from flywheel.card import CardFacts, card
from flywheel.recipe import Recipe

RECIPE = {
    "name": "plays",
    "objective": {"metric": "bits_per_byte", "thresholds": {"bits_per_byte": {"beats": "baseline"}}},
    "data": {"sources": [{"type": "files", "path": "/home/someone/secret place/plays.txt", "license": "CC0-1.0"}]},
    "model": {"modality": "text_causal"},
    "finetune": {"max_steps": 20},
    "peft": {"r": 4},
    "deploy": {"smoke_prompt": "It's | a"},
}
SUMMARIES = {
    "ingest": {
        "read": 1200,
        "kept": 1100,
        "dropped": {"too_large": 60, "empty": 40},
        "sources": {"plays.txt": {"type": "files", "license": "CC0-1.0", "read": 1200, "kept": 1100}},
    },
    "prepare": {"read": 1100, "kept": 1000, "dropped": {"near_duplicate": 100}, "train": 900, "heldout": 100},
    "validate": {"read": 1000, "kept": 998, "quarantined": {"not_unique": 2}, "rows": {"train": 899, "heldout": 99}},
    "train": {"steps": 500, "parameters": 4_123_456, "loss": 2.123456, "seconds": 60.5},
    "finetune": {"steps": 20, "parameters": 4_123_456, "loss": 1.9, "seconds": 6.1},
    "evaluate": {
        "metrics": {
            "bits_per_byte": {
                "value": 1.81234,
                "low": 1.79,
                "high": 1.83,
                "better": "lower",
                "baseline": 1.773,
                "before": None,
            }
        }
    },
    "gate": {
        "promote": False,
        "reasons": [{"metric": "bits_per_byte", "holds": False, "text": "bits_per_byte 1.81 does not beat 1.773"}],
    },
    "export": {
        "default": "fp32",
        "precisions": [
            {
                "precision": "int8",
                "max_logit_error": 0.31,
                "tokens_compared": 512,
                "tokens_equal": 77,
                "speedup": 0.9,
                "quality_change": 0.0123,
                "accepted": False,
                "reason": "slower than fp32",
            }
        ],
    },
}


@pytest.fixture
def facts():
    prints = {step: f"{i:064x}" for i, step in enumerate(SUMMARIES)}
    return CardFacts(Recipe.model_validate(RECIPE), "text", SUMMARIES, prints)


def test_the_front_matter_is_what_a_hub_reads(facts):
    matter = yaml.safe_load(card(facts).split("---\n")[1])
    assert matter["pipeline_tag"] == "text-generation"
    assert matter["datasets"] == ["plays.txt"]
    assert matter["metrics"] == ["bits_per_byte"]
    assert matter["model-index"][0]["results"][0]["metrics"][0]["value"] == 1.81234


@pytest.mark.parametrize(
    "told",
    [
        "| `plays.txt` | files | CC0-1.0 | 1,100 |",
        "**ingest**: 1,200 rows read, 1,100 kept; dropped 100 (too_large 60, empty 40).",
        "quarantined 2 (not_unique 2)",
        "train 899, heldout 99",
        "| train | 500 | 4,123,456 | 2.123 | 60.5 |",
        "| `bits_per_byte` | lower | 1.812 | 1.79 to 1.83 | 1.773 |  |",
        "Not promoted.\n\n- fails: bits_per_byte 1.81 does not beat 1.773",
        "It missed a threshold: bits_per_byte 1.81 does not beat 1.773.",
        "| int8 | 0.31 | 77 of 512 | 0.90 | +1.23% | refused | slower than fp32 |",
        "flywheel serve plays@challenger",
        f"| export | `{7:064x}` |",
    ],
)
def test_the_card_tells(facts, told):
    assert told in card(facts)


def test_equal_facts_give_equal_text(facts):
    assert card(facts) == card(facts)


def test_no_directory_of_the_machine_is_told():
    text = card(CardFacts(Recipe.model_validate(RECIPE), "text", {}, {}))
    assert "plays.txt" in text
    assert "secret" not in text


def test_steps_that_did_not_run_have_no_section():
    text = card(CardFacts(Recipe.model_validate(RECIPE), "image", {}, {}))
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["Intended use", "Data", "Training", "Limits", "Serve it"]
    assert "/v1/images/generations" in text


def test_the_command_survives_a_shell(facts):
    command = card(facts).split("```sh\nflywheel serve plays@challenger\n")[1].split("```")[0]
    assert json.loads(shlex.split(command)[-1]) == {"model": "plays", "prompt": "It's | a"}

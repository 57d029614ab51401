"""What `mask_pii` finds and how fast: on a labelled corpus of made-up identifiers and look-alikes, and on plain text.

    python benchmarks/privacy.py [--json] [--peers PYTHON] [--texts DIR]     (about a minute; writes privacy.json)

Accuracy: five corpora of 4,000 samples, of seeds that were not looked at while the patterns were written. An identifier
is found where one match of its kind covers it whole, so that nothing of it leaks; a match is right where it overlaps an
identifier of its kind. `hard_recall` is of forms that a search by form may miss, each by itself. Median, low and high
are over the seeds.

Speed: MB of UTF-8 per second of one core's time (not of the clock, so that a busy machine matters less), median, low
and high of seven rounds: on the labelled corpus, whose samples are short and dense (60 bytes, an identifier in every
second one), and on `*.jsonl` (column `text`) and `*.txt` of DIR. Peers find e-mail and IP addresses only (datatrove no
IPv6), so the fair rows are those of `flywheel, email and ip`; `kept_ip_email` is the share of labelled addresses that
are still in the text after masking, `changed_others` the share of samples without an address that are changed all the
same. Peers are looked for in PYTHON; those that do not import there are named in `not_installed`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SEEDS, SAMPLES, HARD, ROUNDS, DOCUMENT = range(1_000, 1_005), 4_000, 100, 7, 4_000
ADDRESSES = ("email", "ipv4", "ipv6")
Mask = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--texts", type=Path, help="directory of plain texts")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        sys.stdout.write("\n" + json.dumps(outcome(PEERS[arguments.contender](), json.load(sys.stdin))))
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    result = measured(arguments.texts, arguments.peers)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for row in result["rows"]:
        print(f"{row['contender']:<26}{row['metric']:<52}{row['median']:9.3f}   {row['low']:.3f} to {row['high']:.3f}")


def measured(texts: Path | None, python: str) -> dict[str, Any]:
    from benchmarks.machine import machine

    values: dict[tuple[str, str], list[float]] = {}
    for seed in SEEDS:
        for metric, value in (accuracy(seed) | hard_recall(seed)).items():
            values.setdefault(("flywheel", metric), []).append(value)
    corpus = labelled(SEEDS[0])
    bodies = {"labelled": [text for text, _ in corpus]} | plain(texts)
    absent = []
    for name in [*OWN, *PEERS]:
        found = outcome(OWN[name](), bodies) if name in OWN else peer(name, python, bodies)
        if found is None:
            absent.append(name)
            continue
        for body, seconds in found["seconds"].items():
            size = sum(len(text.encode()) for text in bodies[body]) / 1e6
            values[name, f"mb_per_s {body}"] = [size / second for second in seconds]
        if name in PEERS or name == "flywheel, email and ip":
            values |= {(name, metric): [value] for metric, value in addresses(corpus, found["masked"]).items()}
    rows = [
        {"contender": name, "metric": metric, "median": statistics.median(v), "low": min(v), "high": max(v)}
        for (name, metric), v in values.items()
    ]
    fast = {(row["contender"], row["metric"]): row["median"] for row in rows if row["metric"].startswith("mb_per_s")}
    ratios = {
        f"{own} / {name}, {metric}": fast[own, metric] / value
        for (name, metric), value in fast.items()
        for own in ("flywheel, email and ip",)
        if name in PEERS
    }
    return {"machine": machine(), "not_installed": absent, "rows": rows, "ratios": ratios}


# ---------------------------------------------------------------- accuracy


def labelled(seed: int) -> list[tuple[str, list[tuple[str, int, int]]]]:
    from pii_corpus import make

    return [(sample.text, sample.spans) for sample in make(SAMPLES, seed)]


def accuracy(seed: int) -> dict[str, float]:
    """Recall and precision by kind, over all identifiers (micro) and as the mean of the kinds (macro)."""
    from flywheel.process.privacy import KINDS, find_pii

    real, covered, claimed, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for text, spans in labelled(seed):
        found = find_pii(text)
        for kind, start, end in spans:
            real[kind] += 1
            covered[kind] += any(m.kind == kind and m.start <= start and m.end >= end for m in found)
        for match in found:
            claimed[match.kind] += 1
            right[match.kind] += any(k == match.kind and s < match.end and e > match.start for k, s, e in spans)
    recall = {kind: covered[kind] / real[kind] for kind in KINDS}
    precision = {kind: right[kind] / max(1, claimed[kind]) for kind in KINDS}
    by_kind = {f"recall {k}": v for k, v in recall.items()} | {f"precision {k}": v for k, v in precision.items()}
    return by_kind | {
        "recall micro": covered.total() / real.total(),
        "recall macro": statistics.mean(recall.values()),
        "precision micro": right.total() / claimed.total(),
        "precision macro": statistics.mean(precision.values()),
    }


def hard_recall(seed: int) -> dict[str, float]:
    from pii_corpus import hard

    from flywheel.process.privacy import find_pii

    every, covered = Counter[str](), Counter[str]()
    for form, sample in hard(HARD, seed):
        kind, start, end = sample.spans[0]
        every[form] += 1
        covered[form] += any(m.kind == kind and m.start <= start and m.end >= end for m in find_pii(sample.text))
    return {f"hard_recall {form}": covered[form] / count for form, count in every.items()}


def addresses(corpus: Sequence[tuple[str, list[tuple[str, int, int]]]], masked: Sequence[str]) -> dict[str, float]:
    """How much a masker of addresses leaves, and how often it changes a sample that has none."""
    kept = total = changed = others = 0
    for (text, spans), after in zip(corpus, masked, strict=True):
        values = [text[start:end] for kind, start, end in spans if kind in ADDRESSES]
        total += len(values)
        kept += sum(value in after for value in values)
        if not values and not any(kind == "url_credentials" for kind, _, _ in spans):
            others += 1
            changed += after != text
    return {"kept_ip_email": kept / total, "changed_others": changed / others}


# ---------------------------------------------------------------- speed


def plain(texts: Path | None) -> dict[str, list[str]]:
    """Plain texts by file name; long ones in documents of about 4,000 characters."""
    if texts is None:
        return {}
    bodies = {}
    for path in sorted([*texts.glob("*.jsonl"), *texts.glob("*.txt")]):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            bodies[path.stem] = [json.loads(line)["text"] for line in text.splitlines()]
        else:
            bodies[path.stem] = [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]
    return bodies


def outcome(mask: Mask, bodies: dict[str, list[str]]) -> dict[str, Any]:
    """Seconds of each round by body of texts, and the labelled texts after masking."""
    seconds: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(ROUNDS):
        for name, texts in bodies.items():
            started = time.process_time()
            mask(texts)
            seconds[name].append(time.process_time() - started)
    return {"seconds": seconds, "masked": mask(bodies["labelled"])}


def peer(name: str, python: str, bodies: dict[str, list[str]]) -> dict[str, Any] | None:
    """The same in another interpreter, or None where the peer is not installed."""
    command = [python, __file__, "--contender", name]
    done = subprocess.run(command, input=json.dumps(bodies), capture_output=True, text=True)
    if done.returncode and "ModuleNotFoundError" not in done.stderr:
        raise RuntimeError(f"{name}: {done.stderr}")
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def flywheel(kinds: Sequence[str] = ()) -> Mask:
    from flywheel.process.privacy import KINDS, find_pii
    from flywheel.process.spans import masked

    wanted: Any = kinds or KINDS
    return lambda texts: [masked(text, find_pii(text, wanted)) for text in texts]


def secrets() -> Mask:
    from flywheel.process.secrets import find_secrets
    from flywheel.process.spans import masked

    return lambda texts: [masked(text, find_secrets(text)) for text in texts]


def datatrove() -> Mask:
    from datatrove.pipeline.formatters.pii import PIIFormatter

    formatter = PIIFormatter(only_remove_public_ips=False)
    return lambda texts: [formatter.format(text) for text in texts]


def data_juicer() -> Mask:
    from data_juicer.ops.mapper.clean_email_mapper import CleanEmailMapper
    from data_juicer.ops.mapper.clean_ip_mapper import CleanIpMapper

    email, address = CleanEmailMapper(repl="<EMAIL>"), CleanIpMapper(repl="<IP>")
    return lambda texts: address.process_batched(email.process_batched({"text": list(texts)}))["text"]


def presidio() -> Mask:
    from presidio_analyzer.predefined_recognizers import EmailRecognizer, IpRecognizer

    recognizers = [EmailRecognizer(), IpRecognizer()]

    def mask(text: str) -> str:
        found = [m for r in recognizers for m in r.analyze(text, r.supported_entities, None)]
        for match in sorted(found, key=lambda m: -m.start):
            text = f"{text[: match.start]}<X>{text[match.end :]}"
        return text

    return lambda texts: [mask(text) for text in texts]


OWN: dict[str, Callable[[], Mask]] = {
    "flywheel": flywheel,
    "flywheel, email and ip": lambda: flywheel(ADDRESSES),
    "flywheel, secrets": secrets,
}
PEERS: dict[str, Callable[[], Mask]] = {"datatrove": datatrove, "data-juicer": data_juicer, "presidio": presidio}


if __name__ == "__main__":
    main()

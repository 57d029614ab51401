"""The `flywheel` command. Thin: every heavy import happens inside the command that needs it.

Exit codes: 0 done, 1 failed, 2 the recipe or an argument is wrong, 3 the gate refused, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_models

app = typer.Typer(
    help="One recipe drives a generative model from raw files to a registered, served ONNX model.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong recipe or argument, 3 the gate refused, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at data, and check the data of a recipe.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(cli_models.app)
review_app = typer.Typer(help="Let people compare or rate answers, blind.", no_args_is_help=True)
app.add_typer(review_app, name="review")
RecipePath = Annotated[Path, typer.Argument(help="A recipe file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value changes, such as train.max_steps=10.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
INTERRUPTED = 130
debug_wanted = False


@app.callback()
def common(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    global debug_wanted
    debug_wanted = debug


@app.command()
def run(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Turn the wheel once: run every step of a recipe that is not up to date."""
    from flows import local

    report = local.run(recipe, overrides or [])
    if as_json:
        _print_json(report)
    else:
        from flows import console

        console.show_run(report, local.next_commands(report, recipe))
    if not report["gate"]["promote"]:
        raise typer.Exit(3)


@app.command()
def plan(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show hit or miss for every step of a recipe, and why, without running anything."""
    from flows import report
    from flows.recipes import resolve
    from flywheel.plan import plan as make_plan
    from infra import registry
    from infra.settings import Settings

    settings, resolved = Settings.load(), resolve(recipe, overrides or [])
    steps = [report.line(s) for s in make_plan(resolved, settings.store, registry.Registered(settings))]
    if as_json:
        _print_json({"recipe": resolved.name, "steps": steps})
    else:
        from flows import console

        console.show_plan(steps)


@app.command()
def tune(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Search for better values of the keys in `tune.space` of a recipe; the same command goes on with the search."""
    from flows import study

    report = study.run(recipe, overrides or [])
    if as_json:
        _print_json(report)
    else:
        from flows import tune_screen

        tune_screen.show(report)


@data_app.command("check")
def data_check(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Read, prepare and validate the data of a recipe, and count every row: kept, dropped or quarantined, and why."""
    from flows import data

    report = data.check(recipe, overrides or [])
    if as_json:
        _print_json(report)
    else:
        from flows import console

        console.show_data(report)


@data_app.command("label")
def data_label(
    recipe: RecipePath,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="batch.csv, batch.jsonl, or batch.json (Label Studio).")
    ],
    count: Annotated[int, typer.Option(min=1, help="Rows to label.")] = 100,
    strategy: Annotated[str, typer.Option(help="random, stratified or uncertain.")] = "random",
) -> None:
    """Write a batch of training rows to be labelled; `import_labels: {path: ...}` in the recipe takes it back."""
    from flows import data

    number = data.label(recipe, output, count, strategy)
    typer.echo(f"wrote {number} rows to {output}; fill in the column label, and your name as annotator", err=True)


@data_app.command("agreement")
def data_agreement(
    labels: Annotated[Path, typer.Argument(help="A file of labels, or a directory of files.")], as_json: AsJson = False
) -> None:
    """Say how far annotators agree: Cohen's kappa for each pair, Fleiss' kappa for all."""
    from dataclasses import asdict

    from flywheel import labelling

    found = asdict(labelling.agreement(labelling.read_labels(labels)))
    if as_json:
        _print_json(found)
    else:
        from flows import console

        console.show_pairs(found)


@data_app.command("preview")
def data_preview(
    source: Annotated[str, typer.Argument(help="A path, s3://bucket/prefix, or {type: ..., ...} as in a recipe.")],
    as_json: AsJson = False,
) -> None:
    """Show the first rows of a source, the type of row that they are, and a summary of their quality."""
    from flows import data

    found = data.preview(source)
    if as_json:
        _print_json(found)
    else:
        from flows import console

        console.show_preview(found)


@app.command()
def why(
    model: Annotated[str, typer.Argument(help="NAME, NAME@alias or NAME/version.")],
    row: Annotated[str | None, typer.Option(help="Id of a row: where is it, or why was it left out?")] = None,
    text: Annotated[str | None, typer.Option(help="Words: which rows say them?")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which sources and rows made a version of a model."""
    from flows import provenance

    found = provenance.why(model, row, text)
    if as_json:
        _print_json(found)
    else:
        from flows import console

        console.show_why(found)


@app.command()
def reproduce(
    model: Annotated[str, typer.Argument(help="NAME, NAME@alias or NAME/version.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Try even where something is not as it was.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the weights of a version again and compare their sha256; exit code 0 the same, 1 not, 2 not tried."""
    from flows import reproduce as again

    found = again.reproduce(model, anyway=anyway)
    if as_json:
        _print_json(found)
    else:
        from flows import reproduce_screen

        reproduce_screen.show(found)
    if not found["identical"]:
        raise typer.Exit(2 if found["identical"] is None else 1)


@app.command()
def forget(
    subject: Annotated[str, typer.Option(help="A name, an address, any text, however it is capitalised and spaced.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what holds it; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find a subject in all data and models, keep its rows out of all later runs, and say what must be retrained."""
    from flows import provenance

    found = provenance.forget(subject, really=not dry_run)
    if as_json:
        _print_json(found)
    else:
        from flows import console

        console.show_forget(found)


@review_app.command("make")
def review_make(  # noqa: PLR0913 - its options
    prompts: Annotated[Path, typer.Option(help="Questions: rows with prompt or messages, as .jsonl or Parquet.")],
    a: Annotated[str, typer.Option(help="NAME, NAME@alias or NAME/version, or a file of rows with answers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the batch; its key lies beside it.")],
    b: Annotated[str | None, typer.Option(help="The other side; without one the answers of --a are rated.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Questions at most.")] = 50,
    scale: Annotated[list[str] | None, typer.Option(help="What answers are rated for, once or more.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of a model.")] = 256,
    seed: Annotated[int, typer.Option(help="Draws the questions, and which side stands first.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a batch of answers of two models, or of a model and references, for people to compare blind."""
    from flows import review

    wanted = review.Wanted(prompts, [a, *([b] if b else [])], count, scale or ["quality"], max_tokens, seed)
    made = review.make(wanted, output)
    if as_json:
        _print_json(made)
    else:
        typer.echo(f"wrote {made['items']} items to {output}; next: flywheel review serve {output}", err=True)


@review_app.command("serve")
def review_serve(
    batch: Annotated[Path, typer.Argument(help="A batch that `flywheel review make` wrote.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind on loopback; 0 takes a free one.")] = 8090,
) -> None:
    """Show the page on which people review a batch; every verdict is saved at once."""
    from serving import review

    review.run(batch, port)


@review_app.command("report")
def review_report(
    batch: Annotated[Path, typer.Argument(help="A batch that was reviewed, with its key beside it.")],
    preferences: Annotated[
        Path | None, typer.Option(help="Write rows with prompt, chosen and rejected here, as .jsonl.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say who won, how sure that is, how far the raters agree and where they do not."""
    from flows import review

    told = review.report(batch, preferences)
    if as_json:
        _print_json(told)
    else:
        from flows import console

        console.show_pairs(review.lines(told))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors and programs."""
    from flywheel.recipe import Recipe

    _print_json(Recipe.model_json_schema())


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="A file or directory of your data.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the recipe.")] = Path("recipe.yaml"),
) -> None:
    """Look at your data and write a commented recipe for it."""
    from flywheel import starter

    starter.write(data, output)
    typer.echo(f"wrote {output}; next: flywheel plan {output}", err=True)


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(help="NAME, NAME@alias or NAME/version, one or more.")],
    host: Annotated[
        str, typer.Option(help="Address to bind; only loopback is allowed without authentication.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to bind (default: FLYWHEEL_SERVE_PORT or 8080).")
    ] = None,
) -> None:
    """Serve registered models through OpenAI's API shapes."""
    from flows import local

    sys.exit(local.serve(models, host, port))


@app.command()
def up() -> None:
    """Start Prefect, MLflow, a worker and the model server on loopback; Ctrl-C stops all."""
    from flows import local
    from infra import stack

    local.prepare_environment(hub=True)  # its workers may run recipes that name a hub model
    stack.up()


@app.command()
def worker(pool: Annotated[str, typer.Argument(help="A work pool, such as gpu.")]) -> None:
    """Take runs of a pool on this machine until Ctrl-C, from the server in PREFECT_API_URL or of `flywheel up`."""
    from flows import local

    local.work(pool)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine; each finding comes with its fix."""
    from infra import doctor as checks

    findings = checks.examine()
    if as_json:
        _print_json({"findings": [f.as_dict() for f in findings]})
    else:
        for finding in findings:
            typer.echo(str(finding))
    if any(f.level == "error" for f in findings):
        raise typer.Exit(1)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def main() -> None:
    """Entry point: errors become one message and an exit code; `--debug` adds the traceback."""
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # what Typer makes of Ctrl-C
            sys.stderr.write("interrupted; the same command continues\n")
        raise
    except Exception as error:
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Show an error and return the exit code that stands for it."""
    from flows import console
    from flywheel.errors import FlywheelError, RecipeError, SourceError
    from infra.errors import ExpectationError, InfraError, MissingError, SettingsError

    if debug_wanted:
        traceback.print_exception(error)
    elif isinstance(error, FlywheelError | InfraError):
        console.show_error(str(error))
    else:
        console.show_error(f"{type(error).__name__}: {error}\n  remedy:   flywheel --debug ... shows where")
    wrong = RecipeError | SourceError | ExpectationError | SettingsError | MissingError
    return 2 if isinstance(error, wrong) else 1


if __name__ == "__main__":
    main()

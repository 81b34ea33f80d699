"""`python -m spacy qlora convert`: annotated records to DocBin files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_qlora.cli.app import command
from spacy_qlora.corpus.formats import Format

SPLIT = "0.8,0.1,0.1"
COLUMNS = ("docs", "tokens", "mentions")


class Tokenizer(str, Enum):
    """Which tokenizer makes the tokens."""

    FINE = "fine"
    SPACY = "spacy"


@command("convert")
def convert_cli(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[IN] OUT_DIR",
            help="An input to split and the folder to write to; the folder alone where --train names an input. "
            "An input is a file of BIO-JSON (a list or JSON Lines) or CoNLL columns, plain or .gz, or a `datasets` "
            "set: a Parquet file, a folder or NAME:SPLIT, as it is called on the hub.",
        ),
    ],
    train: Annotated[str | None, typer.Option(help="Input for train.spacy.")] = None,
    dev: Annotated[
        str | None,
        typer.Option(help="Input for dev.spacy. Without it, the second share of --split is taken from --train."),
    ] = None,
    test: Annotated[str | None, typer.Option(help="Input for test.spacy. Without it there is none.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help=f"Shares of train, dev and test of what is not split yet; {SPLIT} if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    join: Annotated[
        int,
        typer.Option(
            metavar="WORDS",
            min=0,
            help="Join neighbouring records of a group to docs of at most so many words, so that a sentence is read "
            "among those around it; in the training split, docs of all lengths up to that. 0 leaves each record alone.",
        ),
    ] = 0,
    views: Annotated[
        int,
        typer.Option(
            metavar="TIMES",
            min=1,
            help="Join the training split so many times, each time at other places, so that a sentence is read among "
            "other neighbours; then train for as many times fewer epochs.",
        ),
    ] = 1,
    format: Annotated[Format, typer.Option(help=f"Format of the inputs: {', '.join(Format)}.")] = Format.AUTO,
    lang: Annotated[str, typer.Option(help="Language of the tokenizer.")] = "en",
    tokenizer: Annotated[
        Tokenizer,
        typer.Option(help="fine: split at every punctuation mark; spacy: by the language's rules."),
    ] = Tokenizer.FINE,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first record that breaks a rule.")] = False,
) -> None:
    """Convert annotated records to train.spacy, dev.spacy, test.spacy and report.json.

    One input is split by records; those of one group stay together, and without --join equal texts. Records that
    break a rule are repaired where that needs no guess, dropped otherwise, and counted in report.json.
    """
    from spacy_qlora.corpus.convert import Settings, convert

    sources = {name: path for name, path in (("train", train), ("dev", dev), ("test", test)) if path is not None}
    *unsplit, out = paths
    if len(unsplit) + (train is not None) != 1 or (unsplit and sources):
        raise typer.BadParameter("give IN and OUT_DIR, or --train and OUT_DIR (and perhaps --dev, --test)")
    if split is not None and dev is not None:
        raise typer.BadParameter("--split has nothing to split where --dev is given")
    if views > 1 and not join:
        raise typer.BadParameter("--views needs --join")
    settings = Settings(
        shares=_shares(SPLIT if split is None else split),
        seed=seed,
        join=join,
        views=views,
        format=format,
        lang=lang,
        fine=tokenizer is Tokenizer.FINE,
        strict=strict,
    )
    report = convert(sources or {"all": unsplit[0]}, Path(out), settings, tell=lambda line: typer.echo(line, err=True))
    _show(report, out)


def _shares(split: str) -> tuple[float, float, float]:
    try:
        train, dev, test = (float(share) for share in split.split(","))
    except ValueError:
        train = dev = test = -1
    if not (train > 0 <= min(dev, test) and abs(train + dev + test - 1) < 1e-6):
        raise typer.BadParameter("--split takes three shares that sum to 1, the first above 0, such as 0.8,0.1,0.1")
    return train, dev, test


def _show(report: dict[str, Any], out: str) -> None:
    from wasabi import msg, table

    splits = report["splits"]
    labels = sorted({label for split in splits.values() for label in split["labels"]})
    rows = []
    for name, split in splits.items():
        counts = [split[column] for column in COLUMNS] + [split["labels"].get(label, 0) for label in labels]
        rows.append((name, *(f"{count:,}" for count in counts)))
    header = ("", *COLUMNS, *labels)
    typer.echo(table(rows, header=header, divider=True, aligns=("l", *"r" * len(header[1:]))))
    kept, read = report["mentions_out"], report["mentions_in"]
    records, used = (sum(log[key] for log in report["inputs"].values()) for key in ("records_in", "records_out"))
    (msg.good if kept == read else msg.warn)(f"{out}: {kept:,} of {read:,} mentions kept")
    if used < records:
        msg.warn(f"{records - used:,} of {records:,} records were dropped; report.json says which and why")
    if split := sum(split["tokens_split"] for split in splits.values()):
        msg.warn(f"{split:,} tokens were split where a mention begins or ends; a pipeline leaves such tokens whole")

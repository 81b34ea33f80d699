"""The command line: `python -m spacy qlora`, one small file a command."""

from spacy.cli._util import app as spacy_app

from spacy_qlora.cli import base, calibrate, convert, evaluate, inspect, plan, pull, push, report, search, train
from spacy_qlora.cli.app import app

spacy_app.add_typer(app)

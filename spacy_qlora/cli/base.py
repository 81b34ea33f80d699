"""`python -m spacy qlora base`: fetch or convert a base, quantise and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from spacy_qlora.cli.app import command


@command("base")
def base_cli(
    name: Annotated[
        str, typer.Argument(help="smollm2-135m, a local checkpoint folder, or a hub id.", metavar="NAME_OR_PATH")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the 4-bit base.", metavar="OUT_DIR")],
    revision: Annotated[Optional[str], typer.Option(help="Branch, tag or commit on the hub.")] = None,  # noqa: UP045
) -> None:
    """Fetch or convert a base model, quantise it to NF4 and save it.

    A base that was fetched before, and lies there whole, stays as it is.
    The hub's local cache is used first; HF_HUB_OFFLINE=1 keeps from asking the network at all.
    """
    from wasabi import msg

    from spacy_qlora.engine.source import find_made, make_base

    if info := find_made(name, out, revision):
        msg.info(f"{out}: made before. Remove it to make it anew.")
    else:
        info = make_base(name, out, revision)
    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    msg.good(f"{out}: {info.id}, {size:.0f} MiB, fingerprint {info.fingerprint[:12]}")

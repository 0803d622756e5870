"""`seqrec-export models`."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import print_json, print_table
from seqrec_export.errors import SeqrecError


def models(
    name: Annotated[str | None, typer.Argument(help="Model whose settings to list.")] = None,
    json: options.Json = False,
) -> None:
    """List the models and what each needs, or the settings and presets of one.

    Example: `seqrec-export models sasrec`
    """
    from seqrec_export.models.registry import MODELS
    from seqrec_export.models.settings import settings_of
    from seqrec_export.training.train import readers_for

    if name is None:
        rows = [
            (m.name, m.summary, ", ".join(("user", "item", "time", *m.needs)), readers_for(m))
            for m in MODELS.values()
        ]
        if json:
            keys = ("model", "summary", "needs", "readers")
            print_json([dict(zip(keys, row, strict=True)) for row in rows])
        else:
            print_table("Models", ("model", "what it is", "needs", "readers"), rows)
        return
    if name not in MODELS:
        raise SeqrecError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    presets = MODELS[name].presets
    settings = [
        {
            "setting": found.name,
            "default": found.default,
            **{preset: values.get(found.name, "") for preset, values in presets.items()},
            "allowed": found.allowed,
            "unit": found.unit,
            "meaning": found.help,
        }
        for found in settings_of(MODELS[name].config).values()
    ]
    if json:
        print_json(settings)
    else:
        print_table(
            f"{name}: --set {name}.SETTING=VALUE, --preset {' or '.join(presets)}",
            ("setting", "default", *presets, "allowed", "unit", "meaning"),
            [tuple(s.values()) for s in settings],
        )

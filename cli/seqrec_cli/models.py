"""`seqrec-export models`."""

from __future__ import annotations

from typing import Annotated

import typer

from seqrec_cli import options
from seqrec_cli.console import note, print_json, print_table


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Model whose settings to list; one of your own: package.module:MODEL."),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the models and what each needs, or the settings and presets of one.

    The list includes models that installed packages offer.

    Example: `seqrec-export models sasrec`
    """
    from seqrec_export.models import registry
    from seqrec_export.models.settings import settings_of
    from seqrec_export.training.train import readers_for

    if name is None:
        broken = registry.broken()
        for text in broken.values():
            note(f"note: {text}")
        sound = [name for name in registry.names() if name in registry.OWN or name not in broken]
        rows = [
            (m.name, m.summary, ", ".join(("user", "item", "time", *m.needs)), readers_for(m))
            for m in map(registry.find, sound)
        ]
        if json:
            keys = ("model", "summary", "needs", "readers")
            print_json([dict(zip(keys, row, strict=True)) for row in rows])
        else:
            print_table("Models", ("model", "what it is", "needs", "readers"), rows)
        return
    model = registry.find(name)
    presets = model.presets
    settings = [
        {
            "setting": found.name,
            "default": found.default,
            **{preset: values.get(found.name, "") for preset, values in presets.items()},
            "allowed": found.allowed,
            "unit": found.unit,
            "meaning": found.help,
        }
        for found in settings_of(model.config).values()
    ]
    if json:
        print_json(settings)
    else:
        print_table(
            f"{model.name}: --set {model.name}.SETTING=VALUE"
            + (f", --preset {' or '.join(presets)}" if presets else ""),
            ("setting", "default", *presets, "allowed", "unit", "meaning"),
            [tuple(s.values()) for s in settings],
        )

"""The command line, as a process would call it."""

import json
from typing import Any

from typer.testing import CliRunner

from seqrec_cli.main import app


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def outcome(*arguments: str) -> Any:
    """What a command prints with --json; a failure shows what went wrong."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)

"""The command line: thin commands over the library, in one module a job."""

from __future__ import annotations

import sys
from typing import Any

import typer

from trunkline.cli import bundle, demo, domain, tasks  # noqa: F401 (join the application)
from trunkline.cli.tasks import app
from trunkline.errors import TrunklineError

__all__ = ["app", "main"]


def main(application: typer.Typer = app) -> None:
    """Runs a command line, by default `trunkline`: problems that a user can mend end in a message and exit code 2."""
    try:
        application(standalone_mode=True)
    except TrunklineError as error:
        _stop(error, 2)
    except PermissionError as error:
        _stop(f"{error.filename or ''}: no permission. Choose another place, or change its permissions.", 2)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        _stop(f"{error}; run the same command again to go on", 130)


def _stop(message: Any, code: int) -> None:
    typer.secho(f"trunkline: {message}", err=True, fg=typer.colors.RED)
    sys.exit(code)

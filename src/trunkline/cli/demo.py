"""The commands that put bundles into a browser and behind HTTP: demo, serve."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from trunkline.cli.tasks import SetOption, app, settings_of
from trunkline.errors import needs

_rights = partial(Option, rich_help_panel="What clients may do")


@app.command()
def demo(
    bundle: Annotated[str | None, Argument(help="A bundle, or OWNER/NAME; else four tasks of the samples.")] = None,
    port: Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    public_key: Annotated[str, Option(help="Ed25519, in hexadecimal digits: the page checks the signature.")] = "",
) -> None:
    """Show a bundle in a page that reads as you type and learns tasks, all of it in your browser.

    Example: trunkline demo support-bot
    """
    from trunkline.demo import HOST, demo_bundle, demo_server

    found = demo_bundle(bundle)
    with demo_server(found.folder, port) as server:
        address = f"http://{HOST}:{server.server_port}/" + (f"?key={public_key}" if public_key else "")
        typer.echo(f"{address} shows {found.manifest.name}; Ctrl+C ends it")
        server.serve_forever()


@app.command()
def serve(
    bundles: Annotated[list[str], Argument(help="Bundles: folders, or OWNER/NAME of the hub.")],
    host: Annotated[str, Option(help="Address; others than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[Path | None, Option(help="File with the token; else TRUNKLINE_TOKEN.")] = None,
    threads: Annotated[int, Option(min=0, help="That compute; 0: as many as processors.")] = 0,
    allow_changes: Annotated[bool, _rights("--allow-changes", help="Add, replace and remove tasks.")] = False,
    allow_fit: Annotated[bool, _rights("--allow-fit", help="Learn tasks from labelled texts.")] = False,
    save: Annotated[bool, _rights("--save", help="Write changes into the bundles.")] = False,
    settings: SetOption = None,
) -> None:
    """Serve bundles over HTTP, until SIGTERM; needs the extra [serve].

    --set changes limits, as texts=64, characters=10000, body_bytes=1000000, queue=512 and seconds=30.

    Example: trunkline serve support-bot --port 8000
    """
    with needs("serve", "serve"):
        from trunkline.serve.run import serve as run
    from trunkline.serve.schema import Limits

    limits = Limits.of(settings_of(settings, Limits.model_fields))
    rights = {name for name, given in (("changes", allow_changes), ("fit", allow_fit), ("save", save)) if given}
    run(bundles, (host, port), token_file, limits, rights, threads)

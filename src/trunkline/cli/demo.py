"""The page that shows a bundle in a browser: demo."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from trunkline.cli.tasks import app


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

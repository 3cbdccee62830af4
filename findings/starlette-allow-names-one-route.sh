#!/usr/bin/env bash
# Starlette 1.10.0: a 405 names in `Allow` only the methods of the first route of a path, not those of its other routes.
# RFC 9110 (15.5.6) asks for a list of the methods that the resource supports. A client that goes by it believes that a
# task can be read, but not put or deleted. FastAPI, where each method is a route of its own, is affected throughout.
# Seen: GET, PUT and DELETE on /x as three routes; POST /x gives `Allow: GET` (with HEAD in Starlette's own routes).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fastapi==0.165.0 starlette==1.10.0 httpx2==2.16.2
"$folder/venv/bin/python" - <<'PY'
import starlette
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient


async def answer(request):
    return Response()


plain = Starlette(routes=[Route("/x", answer, methods=[method]) for method in ("GET", "PUT", "DELETE")])
fast = FastAPI()
for method in ("get", "put", "delete"):
    getattr(fast, method)("/x")(lambda: None)
found = {}
for name, app in (("Starlette", plain), ("FastAPI", fast)):
    said = TestClient(app).post("/x")
    assert said.status_code == 405, said
    assert TestClient(app).put("/x").status_code == 200
    found[name] = sorted(said.headers["allow"].replace(" ", "").split(","))
print(f"starlette {starlette.__version__}: `Allow` after POST where GET, PUT and DELETE are there: {found}")
assert found == {"Starlette": ["GET", "HEAD"], "FastAPI": ["GET"]}, found
PY

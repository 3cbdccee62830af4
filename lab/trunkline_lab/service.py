"""`trunkline serve` under load, abuse and for long: `python -m trunkline_lab.service load|abuse|soak BUNDLE OUT`.

Needs wrk and hey (packages of Debian) for `load`. What sends shares the processors with the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import http.client
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from trunkline.bundle.files import write_atomic
from trunkline.model import load as load_model
from trunkline.samples import FOLDER
from trunkline.versions import versions

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
TOKENS, SHARE = 20, 0.8
LUA = """local lines, n = {}, 0
for line in io.lines(os.getenv("BODIES")) do lines[#lines + 1] = line end
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
request = function() n = n + 1; return wrk.format(nil, nil, nil, lines[n % #lines + 1]) end"""

SESSIONS = """import sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 3, 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.add_session_config_entry("session.disable_prepacking", sys.argv[1])
kept = [ort.InferenceSession(path, options) for path in sys.argv[2:]]
for begin in range(1000, 30000, 100) if kept else ():
    ids, mask = np.arange(begin, begin + 100)[None], np.ones((1, 100), np.float32)
    (hidden,) = kept[0].run(["hidden"], {"ids": ids, "mask": mask})
    kept[1].run(["features"], {"hidden": hidden, "mask": mask, "pool": mask[None] / 100})
print(flush=True)
sys.stdin.read()"""


@contextlib.contextmanager
def serving(bundle: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A service on a free port."""
    command = [sys.executable, "-m", "trunkline.cli", "serve", str(bundle), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rpartition(":")[2]), process
        finally:
            process.terminate()


def sentences(bundle: Path) -> list[str]:
    """Sentences of the samples that are `TOKENS` tokens long."""
    model, lines = (
        load_model(bundle),
        (FOLDER / "tasks" / "events-train.jsonl").read_text(encoding="utf-8").splitlines(),
    )
    texts = [json.loads(line)["text"] for line in lines]
    return [text for text, read in zip(texts, model.tokenizer.encode(texts), strict=True) if sum(read.sizes) == TOKENS]


def spent(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Processor seconds, and megabytes of memory."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return (int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * page / 1e6


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    with contextlib.closing(connection), connection.getresponse() as answer:
        return answer.status, answer.read()


def write(out: Path, **record: Any) -> None:
    """A result, with the versions and the load of the machine at its end."""
    write_atomic(out, json.dumps({"versions": versions(), "load": os.getloadavg(), **record}, indent=1) + "\n")
    typer.echo(json.dumps(record))


@app.command()
def load(bundle: Path, out: Path, seconds: int = 60, clients: int = 16, aim: float = 250) -> None:
    """Requests a second of closed clients (wrk), then the times of answers at 80 % of these, and of the aim (hey)."""
    with serving(bundle) as (port, process), tempfile.TemporaryDirectory() as folder:
        url, bodies, script = f"http://127.0.0.1:{port}/v1/predict", Path(folder) / "bodies", Path(folder) / "wrk.lua"
        texts = sentences(bundle)
        bodies.write_text("".join(json.dumps({"texts": [text]}) + "\n" for text in texts))
        script.write_text(LUA)
        wrk = ["wrk", "-t1", f"-c{clients}", "--latency", "-s", str(script)]
        environment = {**os.environ, "BODIES": str(bodies)}
        subprocess.run([*wrk, "-d3s", url], env=environment, check=True, capture_output=True)
        before = spent(process)[0]
        said = subprocess.run(
            [*wrk, f"-d{seconds}s", url], env=environment, check=True, capture_output=True, text=True
        ).stdout
        each = (spent(process)[0] - before) / int(re.findall(r"(\d+) requests in", said)[0]) * 1000
        most = float(re.findall(r"Requests/sec:\s*([\d.]+)", said)[0])
        parts = {}
        for name, rate in (("at_80_percent", most * SHARE), ("at_80_percent_of_aim", aim * SHARE)):
            pace = f"-o csv -z {seconds}s -c {clients} -q {rate / clients:.3f} -m POST".split()
            rows = subprocess.run(
                ["hey", *pace, "-T", "application/json", "-d", json.dumps({"texts": texts[:1]}), url],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            found = list(csv.DictReader(io.StringIO(rows)))
            times = sorted(float(row["response-time"]) * 1000 for row in found)
            at = {f"p{share}_ms": round(times[int(len(times) * share / 100)], 1) for share in (50, 95, 99)}
            bad = sum(row["status-code"] != "200" for row in found)
            answered = {"requests_per_second": round(len(found) / seconds, 1), "not_200": bad}
            parts[name] = {**answered, **at, "max_ms": times[-1]}
        full = {"requests_per_second": most, "cpu_ms_per_request": round(each, 2), "clients": clients, "wrk": said}
        write(out, tokens=TOKENS, seconds=seconds, memory_mb=spent(process)[1], full=full, **parts)


@app.command()
def soak(bundle: Path, out: Path, minutes: int = 30, rate: float = 10) -> None:
    """Memory by the minute while texts of all lengths, faults, cut connections and changes of tasks come."""
    rng, words, rows, statuses = random.Random(0), " ".join(sentences(bundle)).split(), [], dict[int, int]()
    few = {"name": "new", "texts": words[:12], "labels": ["a", "b"] * 6, "replace": True}
    with serving(bundle, "--allow-fit", "--allow-changes") as (port, process):
        for minute in range(minutes):
            until = time.monotonic() + 60
            while time.monotonic() < until:
                texts = [" ".join(rng.choices(words, k=int(2 ** rng.uniform(0, 9)))) for _ in range(rng.randint(1, 4))]
                draw = rng.random()
                if draw < 0.02:
                    with socket.create_connection(("127.0.0.1", port)) as cut:
                        cut.sendall(b"POST /v1/predict HTTP/1.1\r\nContent-Length: 900\r\nHost: localhost\r\n\r\n{")
                    continue
                given: dict[str, Any] = {"texts": texts if draw < 0.9 else [None]}
                path, body = ("/v1/fit", few) if draw > 0.98 else ("/v1/predict", given)
                status, _ = ask(port, "POST", path, body)
                statuses[status] = statuses.get(status, 0) + 1
                if path == "/v1/fit":
                    ask(port, "DELETE", "/v1/tasks/new")
                time.sleep(rng.expovariate(rate))
            rows.append(
                {"minute": minute + 1, "memory_mb": round(spent(process)[1], 1), "answers": sum(statuses.values())}
            )
            write(out, statuses=statuses, minutes=rows)


@app.command()
def abuse(bundle: Path, out: Path, crowd: int = 2000) -> None:
    """Whole, cut, slow, oversized and senseless requests, each of a crowd at once; then one that must be answered."""
    rng, body = random.Random(0), json.dumps({"texts": sentences(bundle)[:1]}).encode()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    whole = head % len(body) + body
    kinds = {
        "whole": [whole] * crowd,
        "cut": [whole[: rng.randrange(len(whole))] for _ in range(crowd)],
        "slow": [whole[: rng.randrange(len(whole) - 1)] for _ in range(crowd)],
        "oversized": [head % 10**9 + b"x" * 100_000, b"GET / HTTP/1.1\r\nX: " + b"x" * 10**6] * (crowd // 20),
        "senseless": [rng.randbytes(rng.randrange(1, 3000)) for _ in range(crowd // 2)]
        + [head % 30 + b"[" * 30, head % 30 + rng.randbytes(30), head % 0] * (crowd // 6),
    }

    async def one(port: int, content: bytes, kind: str) -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(content)
            said = b"" if kind == "cut" else await asyncio.wait_for(reader.read(200), 90)
            writer.transport.abort()
        except (OSError, TimeoutError) as error:
            return type(error).__name__
        return said.split()[1].decode() if said.startswith(b"HTTP/1.1 ") else "cut" if kind == "cut" else "closed"

    async def all_of(port: int, kind: str) -> list[str]:
        return await asyncio.gather(*(one(port, content, kind) for content in kinds[kind]))

    rows = []
    with serving(bundle) as (port, process):
        for kind in kinds:
            began = time.monotonic()
            found = Counter(asyncio.run(all_of(port, kind)))
            took, began = time.monotonic() - began, time.monotonic()
            status, _ = ask(port, "POST", "/v1/predict", body)
            row = {"kind": kind, "clients": len(kinds[kind]), "answers": found, "seconds": round(took, 1)}
            row |= {"then": status, "then_ms": round((time.monotonic() - began) * 1000), "memory_mb": spent(process)[1]}
            rows.append(row)
        write(out, rows=rows)


@app.command()
def weights(bundle: Path, out: Path) -> None:
    """Memory (PSS) of each of two processes with a bundle's graphs: weights inside, beside, beside and not packed."""
    import onnx

    graphs, rows = [bundle / "graphs" / f"{name}.onnx" for name in ("trunk", "branch")], []
    with tempfile.TemporaryDirectory() as folder:
        beside = [Path(folder) / path.name for path in graphs]
        for path, copy in zip(graphs, beside, strict=True):
            onnx.save_model(onnx.load(path), copy, save_as_external_data=True, location=f"{copy.name}.data")
        for name, files, packed in (
            ("none", [], 0),
            ("inside", graphs, 0),
            ("beside", beside, 0),
            ("mapped", beside, 1),
        ):
            command = [sys.executable, "-c", SESSIONS, str(packed), *map(str, files)]
            both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
            for process in both:
                assert process.stdout is not None
                process.stdout.readline()
            found = [Path(f"/proc/{process.pid}/smaps_rollup").read_text() for process in both]
            rows.append({"weights": name, "pss_mb": [int(re.findall(r"Pss: +(\d+)", one)[0]) / 1e3 for one in found]})
            for process in both:
                process.communicate()
    write(out, graphs_mb=sum(path.stat().st_size for path in graphs) / 1e6, rows=rows)


if __name__ == "__main__":
    app()

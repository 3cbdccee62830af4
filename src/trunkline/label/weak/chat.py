"""Labels with free concept types from any OpenAI-compatible chat endpoint: priced, batched, cached, resumable."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.label.weak.cache import AnswerCache, key_of
from trunkline.label.weak.client import ChatClient, RequestRefused, is_loopback
from trunkline.label.weak.config import ChatConfig
from trunkline.label.weak.output import Desk, Labelled
from trunkline.label.weak.prompt import (
    COMPLETION_TOKENS,
    SYSTEM,
    VERSION,
    InvalidAnswer,
    build_messages,
    locate,
    parse_answer,
)

CHARACTERS_A_TOKEN = 4
REFUSALS = 5
"""Refused requests one after the other, before any success, that end a run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request: entities of each sentence, or the kind of problem; and the tokens it took."""

    entities: Sequence[Sequence[Any]] = ()
    problem: str = ""
    refused: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


def label_chat(config: ChatConfig, sentences: Iterable[str], desk: Desk) -> Iterator[Labelled]:
    """Asks for the sentences that are not in the cache, then yields all sentences with what was answered.

    Raises:
        TrunklineError: No key, not confirmed, or a server that cannot be used.
    """
    key = read_key(config)
    given = list(sentences)
    with AnswerCache(config.cache or desk.out.with_suffix(".cache.jsonl")) as cache:
        pending = [text for text in dict.fromkeys(given) if _key(config, text) not in cache]
        desk.facts.update(cached=len(set(given)) - len(pending), requests=0, prompt_tokens=0, completion_tokens=0)
        if pending:
            desk.say(plan := describe_cost(config, pending, len(given)))
            if not desk.confirm(f"{plan} Go on?"):
                raise TrunklineError("not confirmed, nothing was sent", todo="Confirm, or pass --yes")
            ask_all(config, pending, ChatClient(config, key, stop := threading.Event()), cache, desk, stop)
        desk.facts["unanswered"] = 0
        for text in given:
            answered = _key(config, text) in cache
            desk.facts["unanswered"] += not answered
            yield text, locate(text, cache.get(_key(config, text)), desk.invalid) if answered else ()
    if desk.facts["unanswered"]:
        desk.say(f"{desk.facts['unanswered']} sentences have no valid answer; the same command asks for them again.")


def read_key(config: ChatConfig) -> str:
    """The key from the environment variable that the options name; empty if they name none."""
    if config.key_variable is None:
        return ""
    key = os.environ.get(config.key_variable, "").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise TrunklineError(
            f"the environment variable {config.key_variable} {'holds no key' if key else 'is not set'}",
            expected="the endpoint's key in it, in ASCII without blanks",
            todo=f"export {config.key_variable}=..., or leave --key-variable out for a server without keys",
        )
    return key


def describe_cost(config: ChatConfig, pending: Sequence[str], total: int) -> str:
    """What will be sent where, and what it will cost at most about, in one line."""
    batches = -(-len(pending) // config.sentences)
    prompt = (batches * len(SYSTEM) + sum(len(text) + 4 for text in pending)) // CHARACTERS_A_TOKEN
    completion = COMPLETION_TOKENS * len(pending)
    text = (
        f"{len(pending)} of {total} sentences go to {config.base_url} (model {config.model}) in {batches} requests: "
        f"about {prompt} prompt tokens ({CHARACTERS_A_TOKEN} characters each) and {completion} tokens of answers "
        f"({COMPLETION_TOKENS} a sentence, a guess)"
    )
    if config.price_in is not None and config.price_out is not None:
        text += f", about {money(config, prompt, completion):.2f} at the given prices"
    if config.key_variable and config.base_url.startswith("http:") and not is_loopback(config.base_url):
        text += "; the key goes over http, readable on the way"
    return text + "."


def money(config: ChatConfig, prompt: int, completion: int) -> float:
    """What tokens cost, in the currency of the prices."""
    return (prompt * (config.price_in or 0.0) + completion * (config.price_out or 0.0)) / 1e6


def ask_all(
    config: ChatConfig,
    pending: Sequence[str],
    client: ChatClient,
    cache: AnswerCache,
    desk: Desk,
    stop: threading.Event,
) -> None:
    """Sends the sentences in batches, several at a time; an answer goes to disk when it comes.

    An error or an interrupt waits for the requests that are under way and keeps their answers.
    """
    batches = [pending[i : i + config.sentences] for i in range(0, len(pending), config.sentences)]
    waiting, running = iter(batches), {}
    refusals, success = 0, False
    pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="weak-label")
    try:
        while True:
            for batch in waiting:
                running[pool.submit(ask_batch, client, batch)] = batch
                if len(running) >= config.concurrency:
                    break
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                answer = _keep(config, running.pop(future), future, cache, desk)
                success = success or not answer.refused
                refusals += answer.refused
                if refusals >= REFUSALS and not success:
                    raise TrunklineError(
                        f"{config.base_url}: {answer.problem}, {refusals} times and without one success",
                        expected="a server that takes chat requests for this model",
                        todo="Check --model and --max-tokens, and whether the model wants --reasoning",
                    )
                _progress(desk, len(batches))
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        for future, batch in running.items():
            if not future.cancelled() and future.exception() is None:
                _keep(config, batch, future, cache, desk)


def ask_batch(client: ChatClient, batch: Sequence[str]) -> Answer:
    """One request, as an answer even where it is not usable."""
    reply = None
    try:
        reply = client.ask(build_messages(batch))
        return Answer(
            parse_answer(reply.content, len(batch)),
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )
    except InvalidAnswer as error:
        refused = isinstance(error, RequestRefused)
        if reply is None:
            return Answer(problem=str(error), refused=refused)
        return Answer((), str(error), refused, reply.prompt_tokens, reply.completion_tokens)


def _keep(config: ChatConfig, batch: Sequence[str], future: Future[Answer], cache: AnswerCache, desk: Desk) -> Answer:
    answer = future.result()
    desk.facts["requests"] += 1
    desk.facts["prompt_tokens"] += answer.prompt_tokens
    desk.facts["completion_tokens"] += answer.completion_tokens
    if config.price_in is not None:
        desk.facts["cost"] = money(config, desk.facts["prompt_tokens"], desk.facts["completion_tokens"])
    if answer.problem:
        desk.invalid[answer.problem] += 1
    else:
        cache.add((_key(config, text), entities) for text, entities in zip(batch, answer.entities, strict=True))
    return answer


def _progress(desk: Desk, total: int) -> None:
    done = desk.facts["requests"]
    if done == total or done % max(total // 10, 1) == 0:
        desk.say(f"{done} of {total} requests")


def _key(config: ChatConfig, sentence: str) -> str:
    return key_of(config.model, VERSION, sentence)

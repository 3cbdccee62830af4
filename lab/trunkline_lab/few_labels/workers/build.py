"""Build d62e5f2's `adapt`: its own split for dev, head on the last layer. Runs on that checkout's packages.

See `Worker`. Entities are those of its `predict` on the bare text, whose words are its own.
"""

import json
import sys
import time

CHANNEL, sys.stdout = sys.stdout, sys.stderr


def main() -> None:
    """Answers requests until there are no more."""
    from trunkline.adapt import TaskData, adapt
    from trunkline.adapt.fit import task_features
    from trunkline.config import AdaptSection
    from trunkline.data.examples import NerExample, Span, TextExample, split_words
    from trunkline.data.mixture import split_source
    from trunkline.families import fitting, get_family
    from trunkline.model.bundle_files import load_any

    starts, known = {}, {}
    for line in sys.stdin:
        asked = json.loads(line)
        name, section = asked["encoder"], AdaptSection()
        start = starts.setdefault(name, None) or load_any(name, max_length=256)
        starts[name] = start

        def example(text, marks):
            if isinstance(marks, str):
                return TextExample(text, marks)
            return NerExample(text, tuple(split_words(text)), tuple(Span(*span) for span in marks))

        empty = "" if asked["family"] == "classification" else []
        test = [example(text, empty) for text in asked["test"]]
        key = (name, asked["family"], hash(tuple(asked["test"])))
        if key not in known:
            known.clear()
            known[key] = task_features(TaskData("test", asked["family"], (), (), test), start)["test"]
        began, rows = time.process_time(), [example(*pair) for pair in asked["train"]]
        rest, aside = split_source(len(rows), max(1, len(rows) // 5), None, asked["seed"], share=1 / 5)
        train, dev = [rows[i] for i in rest], [rows[i] for i in aside]
        task = TaskData("task", asked["family"], train, dev)
        features = task_features(task, start)
        found = adapt(task, start, section, seed=asked["seed"], features=features).adapter
        seconds = time.process_time() - began
        predicted = fitting.predict(get_family(asked["family"]), found.head, known[key], test, found.labels)
        answer = {"predictions": predicted, "seconds": seconds, "bytes": 0, "about": {"dev": len(dev)}}
        CHANNEL.write(json.dumps(answer) + "\n")
        CHANNEL.flush()


main()

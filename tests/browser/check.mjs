// What the tests of the npm package ask of it, the same in Node, in a page and in a worker.
import { load } from "../../web/dist/index.js";
import { WordPiece } from "../../web/dist/tokenizer.js";
import { bordersOf, readText } from "../../web/dist/units.js";

/** Runs what `work` lists; `open` makes a source of a bundle's place. */
export async function check(work, open, options = {}) {
  const results = {};
  for (const { name, does, ...order } of work) {
    try {
      results[name] = await ACTIONS[does](order, open, options);
    } catch (error) {
      results[name] = { error: String(error.message ?? error) };
    }
  }
  return results;
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const ACTIONS = {
  /** Tokens, windows, words and pieces of texts. */
  async read({ tokenizer, texts, maxLength, overlap }, open) {
    const wordPiece = new WordPiece(await open(tokenizer)("tokenizer.json", 2 ** 30));
    return texts.map((text) => {
      const read = readText(text, wordPiece, maxLength, overlap);
      const { starts, ends, ids, sizes, place } = read;
      return { starts, ends, ids, sizes, place, words: bordersOf(read, "words"), pieces: bordersOf(read, "pieces") };
    });
  },

  async predict({ bundle, texts, tasks, publicKey, asked }, open, options) {
    const model = await load(open(bundle), publicKey ? { ...options, publicKey } : options);
    const found = await model.predict(texts, { ...(tasks && { tasks }), ...asked });
    const names = model.tasks;
    await model.close();
    return { found, tasks: names };
  },

  async add({ bundle, file }, open, options) {
    const model = await load(open(bundle), options);
    model.add("added", bytesOf(file));
    return model.tasks;
  },

  /** The tasks of a bundle that is given by its files: by name, and as a browser gives a folder that was chosen. */
  async files({ bundle, files }, open, options) {
    const contents = await Promise.all(files.map((file) => open(bundle)(file, 2 ** 30)));
    const named = Object.fromEntries(files.map((file, n) => [file, contents[n]]));
    const chosen = files.map((file, n) => {
      const webkitRelativePath = { value: `models/${bundle}/${file}` };
      return Object.defineProperties(new File([contents[n]], file.split("/").pop()), { webkitRelativePath });
    });
    const models = [await load(named, options), await load(chosen, options)];
    return models.map((model) => model.tasks);
  },

  /** Fits tasks, and gives reports, files, evaluations, and predictions before and after the files are added anew. */
  async fit({ bundle, fits }, open, options) {
    const model = await load(open(bundle), options);
    const results = [];
    for (const { task, texts, labels, testTexts, testLabels } of fits) {
      const report = await model.fit(task, texts, labels);
      const evaluation = await model.evaluate(task, testTexts, testLabels);
      const few = testTexts.slice(0, 10);
      const before = await model.predict(few, { tasks: [task] });
      const file = model.taskFile(task);
      model.remove(task);
      model.add(task, file);
      const same = JSON.stringify(before) === JSON.stringify(await model.predict(few, { tasks: [task] }));
      results.push({ report, evaluation, file: btoa(String.fromCharCode(...file)), same });
    }
    await model.close();
    return results;
  },

  /** Milliseconds of loading, of the first prediction, and the median of later ones, of one text with all tasks. */
  async time({ bundle, text, rounds }, open, options) {
    const began = performance.now();
    const model = await load(open(bundle), options);
    const loaded = performance.now();
    await model.predict([text]);
    const first = performance.now();
    const times = [];
    for (let n = 0; n < rounds; n++) {
      const start = performance.now();
      await model.predict([text]);
      times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    await model.close();
    return { load: loaded - began, first: first - loaded, best: times[0], median: times[rounds >> 1] };
  },
};

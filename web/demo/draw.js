// What the page shows of predictions, lessons and costs.

/** An element with attributes and children; texts become text, never markup. */
export function element(name, attributes = {}, ...children) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") found[key] = value;
    else if (value !== false) found.setAttribute(key, value === true ? "" : value);
  }
  found.append(...children);
  return found;
}

const hues = new Map();

/** An element in the colour of a label: the first labels have the colours that differ most. */
export function hued(found, label) {
  if (!hues.has(label)) hues.set(label, (210 + hues.size * 137.5) % 360);
  found.style.setProperty("--hue", hues.get(label));
  return found;
}

/** A text with its entities marked. */
export function marked(text, entities) {
  const parts = [];
  let end = 0;
  for (const entity of entities) {
    const tag = element("small", {}, `${entity.label} ${percent(entity.score)}`);
    parts.push(text.slice(end, entity.start), hued(element("mark", {}, entity.text, tag), entity.label));
    end = entity.end;
  }
  return element("p", { class: "marked" }, ...parts, text.slice(end));
}

/** The labels of a text with bars, the most probable first; those that are said stand out. */
export function bars({ label, labels, probabilities }) {
  const said = labels ?? (label === null ? [] : [label]);
  const rows = Object.entries(probabilities)
    .sort(([, one], [, other]) => other - one)
    .slice(0, Math.max(5, said.length));
  return element(
    "div",
    {},
    said.length ? "" : element("p", { class: "soft" }, "None of them: no label is sure enough."),
    ...rows.map(([name, probability]) =>
      element(
        "div",
        { class: said.includes(name) ? "bar said" : "bar" },
        element("span", {}, ...breakable(name)),
        track(probability),
        output(probability),
      ),
    ),
  );
}

/** A label that may be broken behind its `_` and `-`. */
function breakable(label) {
  return label.split(/(?<=[_-])/).flatMap((part) => [part, element("wbr")]);
}

function output(probability) {
  return element("output", {}, percent(probability));
}

/** A bar that is so full; the number stands beside it. */
export function track(share) {
  const filled = element("i");
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return element("span", { class: "track", "aria-hidden": "true" }, filled);
}

/** An answer, marked where it stands. */
export function answered(text, { answer, start, end, score }) {
  if (start === null) return element("p", {}, `No answer here (${percent(score)}).`);
  return marked(text, [{ start, end, text: answer, label: "answer", score }]);
}

/** What one pass costs with one trunk, and what as many separate models would. */
export function costs({ count, sizes, spent }) {
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const kilobytes = (bytes) => `${Math.round(bytes / 1e3)} kB`;
  const milliseconds = (value) => (spent.warm ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "…");
  const files = Object.values(sizes.tasks).reduce((sum, bytes) => sum + bytes, 0);
  const shared = sizes.trunk + sizes.branch + sizes.others;
  const one = spent.runs ? spent.trunk + spent.branches / spent.runs : 0;
  const row = (cells, total = false) =>
    element("tr", { class: total && "total" }, element("th", { scope: "row" }, cells[0]), ...cells.slice(1).map((cell) => element("td", {}, cell)));
  const passes = spent.runs === 1 ? "once" : spent.runs === 2 ? "twice" : `${spent.runs} times`;
  return element(
    "div",
    {},
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, element("td"), ...["fetched", "this text"].map((cell) => element("th", { scope: "col" }, cell)))),
      element(
        "tbody",
        {},
        row(["Trunk, once for all tasks", megabytes(sizes.trunk), milliseconds(spent.trunk)]),
        row([`Branch, run ${passes}`, megabytes(sizes.branch), milliseconds(spent.branches)]),
        row([`${count} task files, words, decoding`, kilobytes(files + sizes.others), milliseconds(spent.rest)]),
        row(["Together", megabytes(shared + files), milliseconds(spent.trunk + spent.branches + spent.rest)], true),
        row([`As ${count} separate models`, megabytes(count * shared + files), milliseconds(count * one)], true),
      ),
    ),
    element("small", {}, "Milliseconds are the middle of the last readings, on this device. A separate model is one trunk and one branch."),
  );
}

/** Held-out quality by the number of examples, as a line. */
export function curve(points, score) {
  const [width, height, left, side] = [340, 130, 38, 24];
  const most = Math.max(...points.map(({ count }) => count));
  const x = (count) => left + ((width - left - side) * count) / most;
  const y = (value) => height - side - (height - 2 * side) * value;
  const said = points.map(({ count, value }) => `${count} examples ${percent(value)}`).join(", ");
  const line = points.map(({ count, value }) => `${x(count)},${y(value)}`).join(" ");
  // Numbers that would touch those of the next point are left out.
  const roomy = (n) => n + 1 === points.length || x(points[n + 1].count) - x(points[n].count) > 32;
  const dots = points
    .map(
      ({ count, value }, n) =>
        `<circle cx="${x(count)}" cy="${y(value)}" r="3.5"/>` +
        (roomy(n)
          ? `<text x="${x(count)}" y="${y(value) - 8}" text-anchor="middle">${percent(value)}</text>` +
            `<text x="${x(count)}" y="${height - 7}" text-anchor="middle">${count}</text>`
          : ""),
    )
    .join("");
  const holder = element("div", { role: "img", "aria-label": `Learning curve, ${score}: ${said}` });
  // Numbers alone go into this markup.
  holder.innerHTML = `<svg viewBox="0 0 ${width} ${height}" aria-hidden="true">
    <line x1="${left}" y1="${y(0)}" x2="${width - side / 2}" y2="${y(0)}"/>
    <line x1="${left}" y1="${y(1)}" x2="${width - side / 2}" y2="${y(1)}"/>
    <text x="${left - 6}" y="${y(1) + 4}" text-anchor="end">100%</text><text x="${left - 6}" y="${y(0) + 4}" text-anchor="end">0%</text>
    <polyline points="${line}"/>${dots}</svg>`;
  return holder;
}

export function percent(value) {
  return `${Math.round(100 * value)}%`;
}

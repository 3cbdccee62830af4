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

/** A text with its entities marked. */
export function marked(text, entities) {
  const parts = [];
  let end = 0;
  for (const entity of entities) {
    const tag = element("small", {}, `${entity.label} ${percent(entity.score)}`);
    const hue = [...entity.label].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
    parts.push(text.slice(end, entity.start), element("mark", { style: `--hue: ${hue}` }, entity.text, tag));
    end = entity.end;
  }
  return element("p", { class: "marked" }, ...parts, text.slice(end));
}

/** The labels of a text with bars, the most probable first. */
export function bars(probabilities) {
  const rows = Object.entries(probabilities)
    .sort(([, one], [, other]) => other - one)
    .slice(0, 6);
  return element(
    "div",
    {},
    ...rows.map(([label, probability]) =>
      element(
        "div",
        { class: "bar" },
        element("span", {}, label),
        element("meter", { value: probability, min: 0, max: 1, "aria-label": label }),
        element("output", {}, percent(probability)),
      ),
    ),
  );
}

/** Held-out quality by the number of examples, as a line. */
export function curve(points, score) {
  const [width, height, side] = [320, 120, 28];
  const most = Math.max(...points.map(({ count }) => count));
  const x = (count) => side + ((width - 2 * side) * count) / most;
  const y = (value) => height - side - (height - 2 * side) * value;
  const said = points.map(({ count, value }) => `${count} examples ${percent(value)}`).join(", ");
  const line = points.map(({ count, value }) => `${x(count)},${y(value)}`).join(" ");
  const dots = points
    .map(
      ({ count, value }) =>
        `<circle cx="${x(count)}" cy="${y(value)}" r="3"/>` +
        `<text x="${x(count)}" y="${height - 8}" text-anchor="middle">${count}</text>`,
    )
    .join("");
  const holder = element("div", { role: "img", "aria-label": `Learning curve of ${score}: ${said}` });
  // Numbers alone go into this markup.
  holder.innerHTML = `<svg viewBox="0 0 ${width} ${height}" aria-hidden="true">
    <line x1="${side}" y1="${y(0)}" x2="${width - side}" y2="${y(0)}"/>
    <line x1="${side}" y1="${y(1)}" x2="${width - side}" y2="${y(1)}"/>
    <text x="0" y="${y(1) + 4}">100%</text><text x="0" y="${y(0) + 4}">0%</text>
    <polyline points="${line}"/>${dots}</svg>`;
  return holder;
}

export function percent(value) {
  return `${Math.round(100 * value)}%`;
}

// Examples as people write them: `label: text` a line, or a line with `[label: words]` in it.
const MARK = /\[([^\][:]+): ?([^\]]+)\]/g;

/** Texts and labels of the lines; entities where any line marks one. */
export function readLesson(content) {
  const lines = content
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  if (lines.some((line) => line.match(MARK))) {
    const read = lines.map(readMarks);
    return { texts: read.map(({ text }) => text), labels: read.map(({ spans }) => spans) };
  }
  const pairs = lines.map((line) => {
    const place = line.indexOf(":");
    if (place < 1) throw new Error(`There is no label in the line “${line}”. Write it as “label: text”.`);
    return [line.slice(0, place).trim(), line.slice(place + 1).trim()];
  });
  return { texts: pairs.map(([, text]) => text), labels: pairs.map(([label]) => label) };
}

function readMarks(line) {
  const spans = [];
  let text = "";
  let end = 0;
  for (const match of line.matchAll(MARK)) {
    text += line.slice(end, match.index);
    spans.push({ start: text.length, end: text.length + match[2].length, label: match[1].trim() });
    text += match[2];
    end = match.index + match[0].length;
  }
  return { text: text + line.slice(end), spans };
}

/** The line of an example with another label, or with the entities that were predicted. */
export function writeLine(text, label) {
  if (typeof label === "string") return `${label}: ${text}`;
  let line = "";
  let end = 0;
  for (const span of label) {
    line += `${text.slice(end, span.start)}[${span.label}: ${text.slice(span.start, span.end)}]`;
    end = span.end;
  }
  return line + text.slice(end);
}

// Uses the demo page as a visitor does, and posts what it shows.
const frame = document.getElementById("demo");
const $ = (selector) => frame.contentDocument.querySelector(selector);
const all = (selector) => [...frame.contentDocument.querySelectorAll(selector)];

async function until(holds, what) {
  for (const end = performance.now() + 60_000; performance.now() < end;) {
    const found = holds();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  throw new Error(`${what} did not come: ${$("#status")?.textContent} ${$("#refused")?.textContent}`);
}

function type(selector, text) {
  $(selector).value = text;
  $(selector).dispatchEvent(new frame.contentWindow.Event("input", { bubbles: true }));
}

function shown() {
  return {
    tasks: all("#found h3").map((title) => title.textContent),
    marks: all("#found mark").map((mark) => [mark.firstChild.textContent, mark.lastChild.textContent]),
    bars: all("#found .bar").map((bar) => [bar.children[0].textContent, Number(bar.children[1].getAttribute("value"))]),
  };
}

/** Chooses a file as a visitor does. */
function choose(selector, files) {
  const chosen = new frame.contentWindow.DataTransfer();
  for (const [name, content] of files) chosen.items.add(new frame.contentWindow.File([content], name));
  $(selector).files = chosen.files;
  $(selector).dispatchEvent(new frame.contentWindow.Event("change"));
}

async function use({ text }) {
  const found = {};
  // The best of a few, as other work on the machine only ever adds.
  await until(() => $("#status"), "the page");
  found.ready = Infinity;
  for (let n = 0; n < 3; n++) {
    const began = performance.now();
    frame.contentWindow.location.reload();
    await new Promise((resolve) => (frame.onload = resolve));
    await until(() => all("#found h3").length, "the first prediction");
    found.ready = Math.min(found.ready, performance.now() - began);
  }
  found.keystroke = Infinity;
  for (let end = text.length - 15; end <= text.length; end++) {
    const before = $("#found").firstChild;
    const began = performance.now();
    type("#text", text.slice(0, end));
    await until(() => $("#found").firstChild !== before, "a prediction");
    found.keystroke = Math.min(found.keystroke, performance.now() - began);
  }
  found.read = shown();

  $("#lesson").requestSubmit();
  await until(() => $("#learnt svg"), "a lesson");
  found.learnt = $("#learnt").textContent;
  found.taught = shown();
  found.boxes = all("#tasks input").length;
  const file = await (await fetch($("#learnt a").href)).arrayBuffer();
  found.file = btoa(String.fromCharCode(...new Uint8Array(file)));

  type(
    "#examples",
    "[place: Oslo] is cold\nwe met in [place: Rome]\nno town here\nfrom [place: Lima] with love\nnothing to see\nI saw [place: Cairo]",
  );
  $("#name").value = "towns";
  $("#lesson").requestSubmit();
  await until(() => $("#learnt h3")?.textContent.startsWith("towns") && $("#learnt svg"), "a second lesson");
  found.towns = $("#learnt h3").textContent;

  const broken = new Uint8Array(file);
  broken[broken.length >> 1] ^= 255;
  choose("#file", [["broken.safetensors", broken.slice(0, -5)]]);
  found.refused = await until(() => $("#refused").textContent, "a refusal");
  choose("#file", [["again.safetensors", file]]);
  await until(() => all("#found h3").some((title) => title.textContent === "again"), "the task from its file");
  found.after = { refused: $("#refused").textContent, boxes: all("#tasks input").length };

  found.labels = all("input, textarea, button")
    .filter((part) => !part.labels?.length && !part.textContent && !part.ariaLabel)
    .map((part) => part.id);
  found.resources = frame.contentWindow.performance.getEntriesByType("resource").map(({ name }) => name);
  found.wide = frame.contentDocument.documentElement.scrollWidth;
  frame.width = 360;
  await new Promise((resolve) => setTimeout(resolve, 300));
  found.narrow = frame.contentDocument.documentElement.scrollWidth;
  return found;
}

const answer = await use(await (await fetch("/work.json")).json()).catch((error) => ({
  error: String(error.stack ?? error),
}));
await fetch("/result", { method: "POST", body: JSON.stringify(answer) });

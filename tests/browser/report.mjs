// Looks at pages of evaluations in both themes, wide and narrow, and posts what it sees.
const frame = document.getElementById("frame");

function colour(text) {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return [r, g, b, a];
}

/** What is seen of a colour over the backgrounds of an element and those around it. */
function over(element, front) {
  const layers = [front];
  for (let at = element; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((below, [r, g, b, a]) => below.map((v, n) => v * (1 - a) + [r, g, b][n] * a), [255, 255, 255]);
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The least contrast of any text of the page with what is behind it, but for numbers on the cells of a plot. */
function contrast(page) {
  let least = [Infinity, ""];
  for (const element of page.querySelectorAll("h1, h2, p, a, li, b, th, td, dt, dd, mark, small, figcaption, summary, svg text")) {
    if (!element.textContent.trim() || element.matches(".full, .count")) continue;
    const style = getComputedStyle(element);
    const ink = colour(element.matches("svg text") ? style.fill : style.color);
    const [light, dark] = [over(element, ink), over(element, [0, 0, 0, 0])].map(luminance).sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < least[0]) least = [ratio, `${element.tagName}: ${element.textContent.slice(0, 40)}`];
  }
  return least;
}

async function look(name, theme, width) {
  frame.style.colorScheme = theme;
  frame.width = width;
  await new Promise((resolve) => {
    frame.onload = resolve;
    frame.src = `/${name}`;
  });
  const page = frame.contentDocument;
  const parts = [...page.querySelectorAll("a[href], summary, [tabindex]")];
  const scrolled = [...page.querySelectorAll("main *")].filter(
    (part) => part.scrollWidth > part.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(part).overflowX),
  );
  return {
    name,
    theme,
    width,
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    background: getComputedStyle(page.body).backgroundColor,
    contrast: contrast(page),
    wide: page.documentElement.scrollWidth,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name),
    unnamed: [...page.querySelectorAll("svg")].filter((one) => !one.ariaLabel && one.ariaHidden !== "true").length,
    unreached: parts.filter((part) => (part.focus(), page.activeElement !== part)).length,
    unscrolled: scrolled.filter((part) => part.tabIndex < 0).length,
    lost: parts.filter((part) => part.hash && !page.getElementById(part.hash.slice(1))).length,
    shown: page.querySelectorAll("ol > li").length,
    active: frame.contentWindow.attacked ?? null,
  };
}

const found = [];
try {
  const { names } = await (await fetch("/work.json")).json();
  for (const name of names)
    for (const theme of ["light", "dark"]) for (const width of [1200, 360]) found.push(await look(name, theme, width));
  await fetch("/result", { method: "POST", body: JSON.stringify({ found }) });
} catch (error) {
  await fetch("/result", { method: "POST", body: JSON.stringify({ error: String(error.stack ?? error) }) });
}

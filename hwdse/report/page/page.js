// What connects the charts, the sliders and the tables. Names from the run become text, never markup.

const $ = (id) => document.getElementById(id);
const STATE = { device: null, x: null, y: null, showAll: false, limits: [], target: null, selected: null, cursor: null, best: null, cost: null };
const KEPT = new Map();

/** An element with properties and children; texts stay texts. */
function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function fill(element, ...children) {
  element.replaceChildren(...children);
}

/** A line of SVG as in the chart, for a legend. */
function key(symbol, style) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 14 14");
  svg.setAttribute("width", "14");
  svg.setAttribute("height", "14");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", SYMBOLS[symbol] || symbol);
  for (const [name, text] of Object.entries(style)) path.setAttribute(name, text);
  svg.append(path);
  return svg;
}

function option(objective) {
  return el("option", { value: objective.column, textContent: objective.unit ? `${objective.words} (${objective.unit})` : objective.words });
}

/** Show another chip, with the limits and the configuration that were last chosen on it. */
function showDevice(place) {
  if (STATE.device) KEPT.set(STATE.device, { limits: STATE.limits, selected: STATE.selected });
  const device = DATA.devices[place];
  const kept = KEPT.get(device) || { limits: limitsOf(device), selected: device.start };
  if (!KEPT.has(device)) defaultLimits(kept.limits);
  Object.assign(STATE, { device, cursor: null, ...kept });
  document.documentElement.style.setProperty("--accent", palette(device).accent);
  $("chip-note").textContent = [device.title === device.name ? "" : device.title, device.note].filter(Boolean).map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`).join(" ");
  fill($("chip-worth"), ...device.worth.map((sentence) => el("li", { textContent: sentence })));
  $("chip-empty").textContent = device.emptiness;
  $("chip-empty").hidden = !device.emptiness;
  $("chip-front").hidden = $("point").hidden = Boolean(device.emptiness);
  if (device.emptiness) return;
  fill($("cost"), ...COSTS.filter((o) => o.column in device.breakdown).map(option));
  STATE.cost = COSTS.find((o) => o.column in device.breakdown && o === STATE.cost) || COSTS.find((o) => o.column in device.breakdown) || null;
  if (STATE.cost) $("cost").value = STATE.cost.column;
  makeSliders();
  update();
}

/** The drop that a pick may have is the first limit; no cost is limited. */
function defaultLimits(limits) {
  const drop = limits[0];
  const within = drop.stops.filter((stop) => stop <= DATA.maxDrop).length - 1;
  if (within >= 0) drop.place = within;
}

function makeSliders() {
  fill($("sliders"), ...STATE.limits.map((limit, i) => {
    const output = el("output", { id: `limit-${i}-value` });
    const input = el("input", { type: "range", id: `limit-${i}`, min: 0, max: limit.stops.length - 1, step: 1, value: limit.place });
    input.disabled = limit.stops.length < 2;
    input.addEventListener("input", () => {
      limit.place = Number(input.value);
      later(showLimits);
    });
    return el("div", { className: "limit" }, el("label", { htmlFor: input.id }, el("span", { textContent: limit.words }), output), input);
  }));
}

/** What a slider says. */
function limitWords(limit) {
  if (!isSet(limit)) return "no limit";
  const gain = limit.column === DATA.drop && bound(limit) < 0;
  return gain ? `better by ${limit.text(bound(limit))}` : `at most ${limit.text(bound(limit))}`;
}

const waiting = new Set();
/** Do something once before the next frame. */
function later(task) {
  if (waiting.has(task)) return;
  waiting.add(task);
  requestAnimationFrame(() => {
    waiting.delete(task);
    task();
  });
}

/** Everything that the axes or the chosen configuration change. */
function update() {
  showLimits();
  showLegend();
  showPoint();
}

/** Everything that the limits change. */
function showLimits() {
  const { device, limits } = STATE;
  STATE.best = bestWithin(device, limits, STATE.target);
  limits.forEach((limit, i) => {
    const words = limitWords(limit);
    $(`limit-${i}-value`).textContent = words;
    $(`limit-${i}`).setAttribute("aria-valuetext", words);
  });
  showBest();
  drawFront($("front-chart"), device, STATE).then(listen);
  showWords();
}

function showBest() {
  const { device, limits, best, target } = STATE;
  const all = device.measured.config_id.map((_, row) => row);
  const [n, onFront] = [all, device.front].map((rows) => rows.filter((row) => fits(device, limits, row)).length);
  const lines = [el("p", { textContent: `${n} of ${all.length} ${all.length < device.total ? "shown" : "measured"} configurations fit, ${onFront} of them on the front.` })];
  if (best === null) {
    const ways = relaxations(device, limits).map(({ limit, bound: to }) => `${lower(limit.words)} at most ${limit.text(to)}`);
    lines.unshift(el("p", {}, el("strong", { textContent: "Nothing on the front fits." })));
    if (ways.length) lines.push(el("p", { textContent: `One change is enough: ${ways.join("; or ")}.` }));
  } else {
    const parts = [target, ...DATA.objectives.filter((o) => o !== target)].map((o) => withUnit(o, value(device, o, best)));
    lines.unshift(el("p", {}, el("strong", { textContent: device.measured.config_id[best] }), ` is the best within these limits: ${parts.join(", ")}.`));
  }
  fill($("best"), ...lines);
  $("show-best").disabled = best === null;
  const set = limits.filter(isSet).flatMap((limit) => ["--max", `${limit.name}=${roundBound(limit)}`]);
  $("command").textContent = ["hwdse", "pick", quoted(DATA.run), "--device", quoted(device.name), ...set.map(quoted), "--minimize", target.name].join(" ");
}

function showLegend() {
  const { device, x, y } = STATE;
  const colours = palette(device);
  const near = device.measured.near.filter(Boolean).length;
  const shown = device.measured.config_id.length;
  const others = shown - device.front.length - near;
  const line = { fill: "none", "stroke-width": "1.5" };
  const entries = [
    [key(device.symbol, { fill: colours.accent }), `on the front (${device.front.length})`],
    near && [key(device.symbol, { ...line, stroke: colours.accent }), `within noise of the front (${near})`],
    others && [key("M3 3l8 8M11 3l-8 8", { ...line, stroke: colours.muted }), `measured, off the front (${others})`],
    device.cloud[x.column].length && [key("M7 5a2 2 0 1 0 .01 0z", { fill: colours.faint }), `predicted (${device.cloud[x.column].length})`],
    device.measured.uniform.some(Boolean) && [key("diamond", { ...line, stroke: colours.ink }), "one precision, where it runs"],
    device.pick !== null && [key("circle", { ...line, stroke: colours.ink, "stroke-width": "2" }), "the run's pick"],
    [key("circle", { ...line, stroke: colours.accent }), "best within the limits"],
    [key(device.symbol, { fill: colours.ink }), "chosen"],
    DATA.reference !== null && [key("M0 7h5M8 7h6", { ...line, stroke: colours.ink }), `full precision (${withUnit(QUALITY, DATA.reference)})`],
  ];
  fill($("legend"), ...entries.filter(Boolean).map(([svg, words]) => el("li", {}, svg, words)));
  const hidden = shown - visibleRows(device, STATE.showAll).length;
  const side = QUALITY.maximise ? "below" : "above";
  const sentences = [
    x === QUALITY || y === QUALITY ? `Bars: 95 % intervals of ${lower(QUALITY.words)}.` : "",
    "The line joins those of the front that are best in these two objectives alone.",
    ...[x, y].filter((o) => o.tier === "predicted").map((o) => device.uncertainty[o.column]
      ? `${o.words}: 90 % within a factor of ${factorWords(device, o.column)} of the prediction, which moves marks of the same precisions together.`
      : `${o.words}: an order of magnitude, no interval is known.`),
    shown < device.total ? `Of ${device.total} measured configurations the page holds ${shown}: all of the front, and an even share of the others.` : "",
    hidden && (x === QUALITY || y === QUALITY) ? `${hidden} measured configurations lie ${side} ${withUnit(QUALITY, device.window.worst)} and are not drawn; “Show all” draws them.` : "",
  ];
  $("front-caption").textContent = sentences.filter(Boolean).join(" ");
}

/** The factors of a front's configurations, the smallest and the largest. */
function factorWords(device, column) {
  const factors = device.front.map((row) => factorOf(device, column, row));
  return [...new Set([Math.min(...factors), Math.max(...factors)].map((f) => number(f)))].join(" to ");
}

/** What the chosen configuration is, in a sentence. */
function showWords() {
  const { device, selected } = STATE;
  const names = precisionsOf(device, selected).map((precision) => precision.name);
  const kind = [
    selected === device.pick ? "the run's pick" : "", selected === STATE.best ? "the best within the limits" : "",
    device.front.includes(selected) ? "on the front" : device.measured.near[selected] ? "off the front, within noise" : "off the front",
  ].filter(Boolean).join(", ");
  $("point-heading").textContent = `Configuration ${device.measured.config_id[selected]}`;
  $("point-words").textContent = `${precisionCounts(names)} on ${device.name}: ${kind}.`;
  $("bits-chart").setAttribute("aria-label", `Bits per layer: ${precisionCounts(names)}`);
}

/** Everything about the chosen configuration that the limits do not change. */
function showPoint() {
  const { device, selected } = STATE;
  $("bits-caption").textContent = `Widths as the configuration asks for them, ${DATA.layers.name.length} layers in the order they run.`;
  drawBits($("bits-chart"), device, selected);
  showNumbers();
  showCost();
  showNeighbours();
  const id = device.measured.config_id[selected];
  $("export").textContent = `hwdse export ${quoted(DATA.run)} --device ${quoted(device.name)} --config ${quoted(id)} --out ${quoted(`${id}.onnx`)}`;
}

function showNumbers() {
  const { device, selected } = STATE;
  const columns = device.measured;
  const rows = [];
  const add = (words, text, small) => rows.push(el("tr", {}, el("th", { scope: "row", textContent: words }), el("td", {}, text, small ? el("small", { textContent: small }) : "")));
  const ends = (column) => [`${column}_low`, `${column}_high`].map((name) => columns[name][selected]);
  const bare = (v) => (QUALITY.factor > 1 ? fixed(QUALITY.factor * v, 2) : number(v)).replace("-", "−");
  const sign = columns[DATA.drop][selected] < 0 ? "−" : "";
  add(QUALITY.words, withUnit(QUALITY, columns[DATA.quality][selected]), `95 %: ${ends(DATA.quality).map(bare).join(" to ")}`);
  add("Drop from full precision", sign + difference(QUALITY, columns[DATA.drop][selected]), `95 %, paired: ${ends(DATA.drop).map(bare).join(" to ")}`);
  for (const objective of COSTS) {
    const cost = columns[objective.column][selected];
    const factor = factorOf(device, objective.column, selected);
    const interval = factor ? `90 %: ${[cost / factor, cost * factor].map((v) => number(v)).join(" to ")}` : objective.tier === "predicted" ? "no interval known" : "";
    add(objective.words, withUnit(objective, cost), interval);
  }
  for (const [column, limit] of Object.entries(device.limits)) {
    if (!(column in columns)) continue;
    const share = (100 * columns[column][selected]) / limit;
    const words = { activation_kib: "Memory for activations", memory_kib: "Memory for weights and activations", size_kib: "Memory for weights" }[column] || column;
    add(words, `${share < 1 ? "< 1" : share.toFixed(0)} % full`, `${number(columns[column][selected])} of ${number(limit)} KiB`);
  }
  add("Samples measured on", columns.samples[selected].toLocaleString("en"), "");
  fill($("numbers").tBodies[0], ...rows);
}

function showCost() {
  const { device, selected, cost } = STATE;
  const found = cost && breakdownOf(device, selected, cost.column);
  $("cost-chart").hidden = $("cost-legend").hidden = $("cost").parentElement.hidden = !found;
  if (!found) {
    $("cost-words").textContent = "This run did not record what each layer costs; explore again to see it.";
    return;
  }
  const colours = palette(device);
  const kinds = [...found.groups.map(({ kind, values }) => [kind, values.reduce((a, b) => a + b, 0)]), ...found.beside.map((b) => [b.kind, b.value])];
  const percent = (v) => `${((100 * v) / found.total).toFixed(0)} %`;
  const styles = kindStyles(kinds.map(([kind]) => kind), colours);
  $("cost-words").textContent = `${withUnit(cost, found.total)} in all${kinds.length > 1 ? `: ${kinds.sort((a, b) => b[1] - a[1]).map(([kind, v]) => `${percent(v)} ${kindWords(kind)}`).join(", ")}` : ""}.`;
  $("cost-chart").setAttribute("aria-label", `${cost.words} by layer and kind. ${$("cost-words").textContent}`);
  fill($("cost-legend"), ...(kinds.length > 1 ? kinds : []).map(([kind]) => el("li", {}, key("square", { fill: styles[kind].color, stroke: colours.muted, "stroke-width": "0.5" }), kindWords(kind))));
  const tied = DATA.groups.name.length < DATA.layers.name.length;
  $("cost-caption").textContent = [
    tied ? "Layers that must have the same precision are one row, named after the first." : "",
    found.beside.some(({ kind }) => kind === "beside") ? "What belongs to no layer is one row: this run did not record its parts." : "",
  ].filter(Boolean).join(" ");
  drawCost($("cost-chart"), device, found, cost);
}

function showNeighbours() {
  const { device, selected } = STATE;
  const percent = (share) => (share < 1 ? "< 1 %" : `${share.toFixed(0)} %`);
  const change = (list) => list.length
    ? list.map(([o, v]) => {
        const share = o === QUALITY && o.factor > 1 ? "" : ` (${percent((100 * Math.abs(v)) / Math.abs(value(device, o, selected) || 1))})`;
        return el("div", {}, `${difference(o, v)}${share}`, el("small", { textContent: lower(o.words) }));
      })
    : [el("div", { textContent: "nothing" })];
  const rows = neighbours(device, selected).map((other) => {
    const button = el("button", { type: "button", textContent: device.measured.config_id[other.row] });
    button.setAttribute("aria-label", `Show configuration ${device.measured.config_id[other.row]}`);
    button.addEventListener("click", () => select(other.row));
    const words = other.better.map((o) => lower(o.words)).join(" and ");
    const head = el("tr", {}, el("th", { scope: "rowgroup", colSpan: 2 }, el("div", {}, el("span", { textContent: `Better in ${words}` }), button)));
    return el("tbody", {}, head, el("tr", {}, el("td", {}, ...change(other.gains)), el("td", {}, ...change(other.losses))));
  });
  if (!rows.length) rows.push(el("tr", {}, el("td", { colSpan: 2, textContent: "No other configuration on the front is better in anything." })));
  for (const body of [...$("neighbours").tBodies]) body.remove();
  $("neighbours").append(...rows);
}

function select(row) {
  STATE.selected = row;
  STATE.cursor = null;
  later(update);
}

let listens = false;
/** Clicks on the chart, once it is there. */
function listen() {
  if (listens) return;
  listens = true;
  $("front-chart").on("plotly_click", ({ points }) => {
    const row = points.map((point) => point.customdata).find((r) => r !== undefined);
    if (row !== undefined) select(row);
  });
}

/** Arrow keys go along the front, Enter chooses, Escape leaves. */
function onKey(event) {
  const { device, x, y, selected, cursor } = STATE;
  const order = [...device.front].sort((a, b) => value(device, x, a) - value(device, x, b) || value(device, y, a) - value(device, y, b));
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  const here = order.indexOf(cursor ?? selected);
  const last = order.length - 1;
  if (step) STATE.cursor = order[here < 0 ? (step > 0 ? 0 : last) : Math.min(Math.max(here + step, 0), last)];
  else if (event.key === "Home") STATE.cursor = order[0];
  else if (event.key === "End") STATE.cursor = order[last];
  else if (event.key === "Escape") STATE.cursor = null;
  else if ((event.key === "Enter" || event.key === " ") && cursor !== null) select(cursor);
  else return;
  event.preventDefault();
  const row = STATE.cursor;
  $("reading").textContent = row === null ? "" : `${device.measured.config_id[row]}: ${DATA.objectives.map((o) => withUnit(o, value(device, o, row))).join(", ")}`;
  later(redraw);
}

function redraw() {
  drawFront($("front-chart"), STATE.device, STATE);
}

function download() {
  const { device, selected } = STATE;
  const pick = asPick(device, selected);
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(pick, null, 2)}\n`], { type: "application/json" }));
  el("a", { href: url, download: `${device.name}-${pick.config_id}.json`.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.style.colorScheme || (prefersDark.matches ? "dark" : "light")) === "dark";

function repaint() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  if (!STATE.device) return;
  document.documentElement.style.setProperty("--accent", palette(STATE.device).accent);
  if (!STATE.device.emptiness) update();
}

function connect() {
  STATE.target = COSTS[0];
  STATE.x = OBJECTIVES.get(DATA.mainCost);
  STATE.y = QUALITY;
  for (const name of ["x", "y"]) {
    const choice = $(`${name}-axis`);
    fill(choice, ...DATA.objectives.map(option));
    choice.value = STATE[name].column;
    choice.addEventListener("change", () => {
      STATE[name] = OBJECTIVES.get(choice.value);
      STATE.cursor = null;
      later(update);
    });
  }
  fill($("target"), ...COSTS.map((objective) => el("option", { value: objective.column, textContent: lower(objective.words) })));
  const on = (id, event, task) => $(id).addEventListener(event, task);
  on("target", "change", () => { STATE.target = OBJECTIVES.get($("target").value); later(showLimits); });
  on("cost", "change", () => { STATE.cost = OBJECTIVES.get($("cost").value); later(showCost); });
  on("show-all", "change", () => { STATE.showAll = $("show-all").checked; later(update); });
  on("show-best", "click", () => STATE.best !== null && select(STATE.best));
  on("limits", "submit", (event) => event.preventDefault());
  on("reset", "click", (event) => {
    event.preventDefault();
    STATE.limits.forEach((limit) => { limit.place = limit.stops.length - 1; });
    makeSliders();
    later(showLimits);
  });
  on("front-chart", "keydown", onKey);
  on("download", "click", download);
  on("chips", "change", (event) => showDevice(Number(event.target.value)));
  showDevice(Number(document.querySelector("#chips input:checked").value));
}

/** The text that is packed in an element. */
async function unpacked(id) {
  const letters = atob($(id).textContent);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

/** Unpack the data and the drawing library, which are most of the file, and start. */
async function begin() {
  take(JSON.parse(await unpacked("data")));
  document.head.append(el("script", { textContent: await unpacked("plotly") }));
  connect();
  document.documentElement.dataset.ready = "yes";
}

$("theme").hidden = false;
$("theme").addEventListener("click", () => {
  document.documentElement.style.colorScheme = isDark() ? "light" : "dark";
  repaint();
});
prefersDark.addEventListener("change", repaint);
repaint();
requestAnimationFrame(() => setTimeout(begin));

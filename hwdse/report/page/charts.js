// The three charts, drawn with Plotly from the model's answers.

const SYMBOLS = {
  circle: "M7 2a5 5 0 1 0 .01 0z", square: "M2.5 2.5h9v9h-9z", "triangle-up": "M7 1.5 12.5 11.5h-11z",
  diamond: "M7 1 13 7 7 13 1 7z", "triangle-down": "M1.5 2.5h11L7 12.5z", cross: "M5 1.5h4V5h3.5v4H9v3.5H5V9H1.5V5H5z",
  x: "M3.5 1.5 7 5l3.5-3.5 2 2L9 7l3.5 3.5-2 2L7 9l-3.5 3.5-2-2L5 7 1.5 3.5z", "triangle-left": "M11.5 1.5v11L1.5 7z",
};
const SETTINGS = { displayModeBar: false, responsive: true };
const LOG_RATIO = 10;
const ROWS = 16;

/** The page's colours as Plotly can read them. */
function palette(device) {
  const probe = document.createElement("span");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const colours = Object.fromEntries(["paper", "panel", "ink", "muted", "faint", "line"].map((name) => [name, read(name)]));
  probe.remove();
  const [, red] = colours.paper.match(/(\d+)/);
  const dark = Number(red) < 128;
  const accent = dark ? mixed(device.colour, "#ffffff", device.colour === "#000000" ? 0.75 : 0.3) : device.colour;
  return { ...colours, dark, accent, tint: mixed(accent, dark ? "#15181c" : "#ffffff", 0.5) };
}

/** A colour with a share of another in it. */
function mixed(colour, other, share) {
  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [a, b] = [parts(colour), parts(other)];
  return "#" + a.map((part, i) => Math.round(part + (b[i] - part) * share).toString(16).padStart(2, "0")).join("");
}

function spansDecade(values) {
  const low = Math.min(...values);
  return low > 0 && Math.max(...values) >= LOG_RATIO * low;
}

/** The rows that the window on quality shows. */
function visibleRows(device, showAll) {
  const { worst, best } = device.window;
  const rows = device.measured.config_id.map((_, row) => row);
  const [low, high] = [Math.min(worst, best), Math.max(worst, best)];
  const shown = rows.filter((row) => value(device, QUALITY, row) >= low && value(device, QUALITY, row) <= high);
  return showAll || !shown.length ? rows : shown;
}

/** An axis for an objective around the rows that are shown. */
function axis(device, objective, rows, showAll, colours) {
  const scaled = rows.map((row) => objective.factor * value(device, objective, row));
  const windowed = objective === QUALITY && !showAll;
  const ends = windowed ? [device.window.worst, device.window.best].map((end) => objective.factor * end) : scaled;
  if (objective === QUALITY && showAll && DATA.reference !== null) ends.push(objective.factor * DATA.reference);
  const isLog = objective === QUALITY ? (showAll ? spansDecade(ends) && !objective.maximise : device.window.log) : spansDecade(scaled);
  const place = (v) => (isLog ? Math.log10(v) : v);
  const [low, high] = [place(Math.min(...ends)), place(Math.max(...ends))];
  const margin = windowed ? 0 : Math.max(0.06 * (high - low), isLog ? 0.02 : 0.01 * Math.abs(high)) || 1;
  return {
    title: { text: axisLabel(objective), standoff: 10 }, type: isLog ? "log" : "linear", range: [low - margin, high + margin],
    ...(isLog && { dtick: high - low < 2 ? "D2" : "D1" }), exponentformat: "none", separatethousands: true, zeroline: false,
    gridcolor: colours.line, linecolor: colours.faint, tickcolor: colours.faint, ticks: "outside", ticklen: 4, automargin: true,
    nticks: 7,
  };
}

/** Rows that are best in two objectives alone, ordered along the first. */
function staircase(device, x, y) {
  const order = [...device.front].sort((a, b) => loss(x, value(device, x, a)) - loss(x, value(device, x, b))
    || loss(y, value(device, y, a)) - loss(y, value(device, y, b)));
  let best = Infinity;
  return order.filter((row) => loss(y, value(device, y, row)) < best && ((best = loss(y, value(device, y, row))), true));
}

function layoutOf(colours, more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colours.muted },
    hoverlabel: { bgcolor: colours.paper, bordercolor: colours.faint, font: { color: colours.ink, size: 13 }, align: "left" },
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false, ...more,
  };
}

/** Error bars of those rows that are `ok`: 95 % of what was measured, 90 % of what is predicted. */
function errorBars(device, objective, rows, style, ok = null) {
  const columns = device.measured;
  const ends = (row) => {
    const factor = factorOf(device, objective.column, row);
    const middle = value(device, objective, row);
    if (objective === QUALITY) return [columns[`${DATA.quality}_low`][row], columns[`${DATA.quality}_high`][row]];
    return factor ? [middle / factor, middle * factor] : [middle, middle];
  };
  const away = (side) => rows.map((row) => ok && !ok[row] ? 0 : objective.factor * Math.abs(ends(row)[side] - value(device, objective, row)));
  return { type: "data", symmetric: false, arrayminus: away(0), array: away(1), ...style };
}

/** Whether a bar fits the axis: one that crosses the whole chart would pass for a line of the chart. */
function within(middle, { array, arrayminus }, { range, type }) {
  const [low, high] = type === "log" ? range.map((v) => 10 ** v) : range;
  return middle - arrayminus[0] >= low && middle + array[0] <= high;
}

/** Draw the front; `view` says which axes, rows and limits. */
function drawFront(element, device, view) {
  const { x, y, showAll, limits } = view;
  const colours = palette(device);
  const rows = visibleRows(device, showAll);
  const ok = device.measured.config_id.map((_, row) => fits(device, limits, row));
  const onFront = new Set(device.front);
  const others = rows.filter((row) => !onFront.has(row));
  const near = others.filter((row) => device.measured.near[row]);
  const far = others.filter((row) => !device.measured.near[row]);
  const at = (list) => ({
    x: list.map((row) => x.factor * value(device, x, row)), y: list.map((row) => y.factor * value(device, y, row)),
    customdata: list, text: list.map((row) => hover(device, row)), hovertemplate: "%{text}<extra></extra>",
  });
  const marks = (list, marker, more = {}) => ({ type: "scatter", mode: "markers", ...at(list), marker, cliponaxis: true, ...more });
  const painted = (list, colour) => list.map((row) => (ok[row] ? colour : colours.faint));
  const ring = (row, size, width, colour, more) => marks(row === null ? [] : [row],
    { symbol: "circle-open", size, color: colour, line: { width, color: colour } }, { hoverinfo: "skip", hovertemplate: null, ...more });
  const cloud = { type: "scatter", mode: "markers", hoverinfo: "skip", marker: { size: 3, color: colours.line },
    x: device.cloud[x.column].map((v) => x.factor * v), y: device.cloud[y.column].map((v) => y.factor * v) };
  const steps = at(staircase(device, x, y));
  const axes = { xaxis: axis(device, x, rows, showAll, colours), yaxis: axis(device, y, rows, showAll, colours) };
  const bars = { thickness: 1, width: 0, color: colours.tint };
  const front = marks(device.front, {
    symbol: device.symbol, size: 9, color: painted(device.front, colours.accent), line: { width: 1, color: colours.paper },
  }, { [x === QUALITY ? "error_x" : "error_y"]: x === QUALITY || y === QUALITY ? errorBars(device, QUALITY, device.front, bars, ok) : undefined });
  const uniform = others.concat(device.front).filter((row) => device.measured.uniform[row] && rows.includes(row));
  const chosen = view.selected;
  const strong = { thickness: 1.5, width: 5, color: colours.ink };
  const chosenBars = (objective, shown) => {
    const found = chosen === null ? null : errorBars(device, objective, [chosen], strong);
    return found && within(objective.factor * value(device, objective, chosen), found, shown) ? found : undefined;
  };
  const traces = [
    cloud,
    marks(far, { symbol: "x-thin", size: 5, line: { width: 1, color: painted(far, colours.muted) } }),
    marks(near, { symbol: device.symbol, size: 7, color: colours.paper, line: { width: 1.2, color: painted(near, colours.accent) } }),
    { type: "scatter", mode: "lines", x: steps.x, y: steps.y, hoverinfo: "skip",
      line: { shape: loss(x, 1) > 0 ? "hv" : "vh", width: 1.5, color: colours.accent } },
    front,
    marks(uniform, { symbol: "diamond-open", size: 11, color: colours.ink, line: { width: 1.3, color: colours.ink } }, {
      mode: "markers+text", cliponaxis: false, text: uniform.map((row) => plain(device.measured.uniform[row])), textposition: "top center",
      textfont: { size: 11, color: colours.muted }, hovertemplate: null, hovertext: uniform.map((row) => hover(device, row)), hoverinfo: "text",
    }),
    ring(device.pick, 17, 2, colours.ink),
    ring(view.best, 23, 1.5, colours.accent),
    ring(chosen, 12, 3, colours.ink, { marker: { symbol: device.symbol, size: 12, color: colours.ink },
      error_x: chosenBars(x, axes.xaxis), error_y: chosenBars(y, axes.yaxis) }),
    ring(view.cursor, 20, 2, colours.ink, { marker: { symbol: "square-open", size: 21, line: { width: 2, color: colours.ink }, color: colours.ink } }),
  ];
  const layout = layoutOf(colours, { ...axes, margin: { l: 56, r: 14, t: 18, b: 52 }, hovermode: "closest", ...fullPrecision(x, y, axes, colours),
    uirevision: `${device.name} ${x.column} ${y.column} ${showAll}` });
  return Plotly.react(element, traces, layout, SETTINGS);
}

/** The line of full precision, where one of the axes is the quality and has a place for it. */
function fullPrecision(x, y, axes, colours) {
  const isX = x === QUALITY;
  const shown = isX ? axes.xaxis : axes.yaxis;
  if (DATA.reference === null || (!isX && y !== QUALITY) || (shown.type === "log" && DATA.reference <= 0)) return {};
  const level = QUALITY.factor * DATA.reference;
  const line = isX ? { x0: level, x1: level, yref: "paper", y0: 0, y1: 1 } : { y0: level, y1: level, xref: "paper", x0: 0, x1: 1 };
  return { shapes: [{ type: "line", ...line, layer: "below", line: { color: colours.ink, width: 1, dash: "dash" } }] };
}

/** What hovering over a configuration says. */
function hover(device, row) {
  const lines = DATA.objectives.map((o) => `${plain(o.words)}: ${withUnit(o, value(device, o, row))}`);
  const uniform = device.measured.uniform[row];
  return [`<b>${plain(device.measured.config_id[row])}</b>${uniform ? ` (${plain(uniform)} everywhere)` : ""}`, ...lines].join("<br>");
}

/** Draw bits of weights and activations per layer, over each layer's share of the MACs. */
function drawBits(element, device, row) {
  const colours = palette(device);
  const precisions = precisionsOf(device, row);
  const names = DATA.layers.name;
  const macs = DATA.layers.macs;
  const total = macs.reduce((a, b) => a + b, 0) || 1;
  const x = names.map((_, i) => i);
  const panel = (key, axisName, colour, more) => ({ type: "bar", x, yaxis: axisName, marker: { color: colour }, hovertemplate: "%{hovertext}<extra></extra>", ...more(key) });
  const bits = (key) => ({
    y: precisions.map((p) => p[key].bits), hovertext: precisions.map((p, i) => `<b>${plain(names[i])}</b><br>${key} ${plain(p[key].format)}`),
  });
  const share = () => ({ y: macs.map((m) => (100 * m) / total), hovertext: macs.map((m, i) => `<b>${plain(names[i])}</b><br>${number((100 * m) / total)} % of the MACs`) });
  const traces = [panel("weights", "y", colours.accent, bits), panel("activations", "y2", colours.tint, bits), panel("", "y3", colours.faint, share)];
  // From the widest down, those whose labels do not touch.
  const levels = (key) => [...new Set(precisions.map((p) => p[key].bits).concat(8))].sort((a, b) => b - a)
    .reduce((kept, bits, _, all) => (kept.length && kept.at(-1) - bits < all[0] / 6 ? kept : [...kept, bits]), []);
  const common = { gridcolor: colours.line, zeroline: false, fixedrange: true };
  const bitAxis = (key, domain) => ({ ...common, domain, tickvals: levels(key), range: [0, 1.04 * Math.max(...levels(key))] });
  const title = (text, y) => ({ text, xref: "paper", yref: "paper", x: 0, xanchor: "left", y, yanchor: "bottom", showarrow: false, font: { size: 12, color: colours.ink } });
  const dense = names.length * 11 > element.clientWidth;
  return Plotly.react(element, traces, layoutOf(colours, {
    margin: { l: 34, r: 4, t: 22, b: 20 }, bargap: names.length > 40 ? 0.1 : 0.25, hovermode: "closest", dragmode: false,
    xaxis: { tickvals: dense ? [] : x, ticktext: DATA.layers.short.map(plain), tickangle: names.length > 5 ? -60 : 0, tickfont: { size: 11 }, automargin: true, fixedrange: true, anchor: "y3", showgrid: false, zeroline: false },
    yaxis: bitAxis("weights", [0.7, 1]), yaxis2: bitAxis("activations", [0.3, 0.6]), yaxis3: { ...common, domain: [0, 0.19], nticks: 3, rangemode: "tozero" },
    annotations: [title("Weight bits", 1), title("Activation bits", 0.6), title("Share of the MACs (%)", 0.19)],
  }), SETTINGS);
}

/** How each kind of cost is painted: colour and, so that grey print tells them apart, pattern. */
function kindStyles(kinds, colours) {
  const plainStyles = {
    compute: { color: colours.accent }, overhead: { color: colours.faint }, table: { color: colours.ink },
    between: { color: colours.muted }, switches: { color: colours.ink, shape: "x" }, fixed: { color: colours.faint, shape: "." },
    beside: { color: colours.muted, shape: "." },
  };
  const levels = kinds.filter((kind) => !(kind in plainStyles));
  return Object.fromEntries(kinds.map((kind) => [kind, plainStyles[kind]
    || (OBJECTIVES.has(kind) ? { color: colours.accent } : { color: colours.tint, shape: ["/", "\\", "-", "|"][levels.indexOf(kind) % 4] })]));
}

/** Draw a cost by layer and kind: the costliest groups in the order of the network, the others together. */
function drawCost(element, device, found, objective) {
  const colours = palette(device);
  const sums = DATA.groups.name.map((_, g) => found.groups.reduce((sum, { values }) => sum + values[g], 0));
  const costliest = new Set(sums.map((_, g) => g).sort((a, b) => sums[b] - sums[a]).slice(0, ROWS));
  const shown = sums.map((_, g) => g).filter((g) => costliest.has(g));
  const rest = sums.map((_, g) => g).filter((g) => !costliest.has(g));
  const labels = shown.map((g) => plain(DATA.groups.short[g]));
  const full = shown.map((g) => plain(DATA.groups.name[g]));
  if (rest.length) { labels.push(`${rest.length} others`); full.push(`${rest.length} other groups together`); }
  for (const { kind } of found.beside) { labels.push(kindWords(kind)); full.push(kindWords(kind)); }
  const y = labels.map((_, i) => i);
  const styles = kindStyles([...found.groups, ...found.beside].map(({ kind }) => kind), colours);
  const bar = (kind, values) => ({
    type: "bar", orientation: "h", y, x: values, name: plain(kindWords(kind)),
    marker: { color: styles[kind].color, pattern: { shape: styles[kind].shape || "", fgcolor: colours.paper, size: 6, solidity: 0.3 } },
    hovertemplate: "%{hovertext}<extra></extra>", hovertext: values.map((v, i) => `<b>${full[i]}</b><br>${plain(kindWords(kind))}: ${withUnit(objective, v)}`),
  });
  const traces = found.groups.map(({ kind, values }) => bar(kind, [
    ...shown.map((g) => values[g]), ...(rest.length ? [rest.reduce((sum, g) => sum + values[g], 0)] : []), ...found.beside.map(() => 0)]));
  found.beside.forEach(({ kind, value: cost }, i) => traces.push(bar(kind, y.map((at) => (at === labels.length - found.beside.length + i ? cost : 0)))));
  element.style.height = `${90 + 24 * labels.length}px`;
  return Plotly.react(element, traces, layoutOf(colours, {
    barmode: "stack", bargap: 0.28, hovermode: "closest", dragmode: false, margin: { l: 10, r: 14, t: 4, b: 46 },
    xaxis: { title: { text: axisLabel(objective), standoff: 8 }, gridcolor: colours.line, zerolinecolor: colours.faint, fixedrange: true, nticks: 6, rangemode: "tozero" },
    yaxis: { tickvals: y, ticktext: labels, autorange: "reversed", automargin: true, fixedrange: true, showgrid: false, zeroline: false, tickfont: { size: 12 }, ticklabelstandoff: 6 },
  }), SETTINGS);
}

/** Words for a kind of cost. */
function kindWords(kind) {
  return DATA.kinds[kind] || (OBJECTIVES.has(kind) ? lower(OBJECTIVES.get(kind).words) : `traffic of ${kind}`);
}

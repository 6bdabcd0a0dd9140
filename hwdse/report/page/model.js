// What the page computes: limits, the best pick, costs by layer and kind, neighbours. No element of the page in here.

let DATA, OBJECTIVES, QUALITY, COSTS;
const FEW_DIGITS = 1e-9;

/** Take what the run is about; nothing else works before that. */
function take(data) {
  DATA = data;
  OBJECTIVES = new Map(DATA.objectives.map((objective) => [objective.column, objective]));
  QUALITY = OBJECTIVES.get(DATA.quality);
  COSTS = DATA.objectives.filter((objective) => objective !== QUALITY);
}

/** Where a value stands when everything is minimised. */
const loss = (objective, value) => (objective.maximise ? -value : value);

const value = (device, objective, row) => device.measured[objective.column][row];

/** The precisions of a configuration, one per layer. */
function precisionsOf(device, row) {
  const first = DATA.firstLetter.charCodeAt(0);
  return [...device.measured.bits[row]].map((letter) => DATA.precisions[letter.charCodeAt(0) - first]);
}

/** The limits that a reader can set: on the drop of quality and on each cost, at values that were found. */
function limitsOf(device) {
  const drop = {
    name: DATA.drop, column: DATA.drop, words: `${QUALITY.words} lost`, objective: QUALITY, text: (v) => difference(QUALITY, v),
  };
  const costs = COSTS.map((objective) => ({
    name: objective.name, column: objective.column, words: objective.words, objective, text: (v) => withUnit(objective, v),
  }));
  return [drop, ...costs].map((limit) => {
    const stops = [...new Set(device.measured[limit.column])].sort((a, b) => a - b);
    return { ...limit, stops, place: stops.length - 1 };
  });
}

const isSet = (limit) => limit.place < limit.stops.length - 1;
const bound = (limit) => limit.stops[limit.place];

/** A number of three digits, or more, that limits as `bound` does: at least that, and less than the next that was found. */
function roundBound(limit) {
  const [low, next] = [bound(limit), limit.stops[limit.place + 1]];
  for (let digits = 3; digits < 17; digits++) {
    const unit = 10 ** (Math.floor(Math.log10(Math.abs(low) || 1)) + 1 - digits);
    const near = Number((Math.ceil(low / unit) * unit).toPrecision(digits));
    if (near >= low && near < next) return near;
  }
  return low;
}

/** Whether a configuration keeps to all limits but `except`; meeting one exactly is enough. */
function fits(device, limits, row, except = null) {
  return limits.every((limit) => limit === except || !isSet(limit) || device.measured[limit.column][row] <= bound(limit));
}

/** The row on the front with the lowest `target` within the limits; ties go to quality, then to the other costs. */
function bestWithin(device, limits, target) {
  const order = [target, QUALITY, ...COSTS];
  let best = null;
  for (const row of device.front) {
    if (!fits(device, limits, row)) continue;
    if (best === null) best = row;
    const first = order.find((o) => value(device, o, row) !== value(device, o, best));
    if (first && loss(first, value(device, first, row)) < loss(first, value(device, first, best))) best = row;
  }
  return best;
}

/** For each limit that is set, the bound that would let something on the front fit if only that limit changed. */
function relaxations(device, limits) {
  return limits.filter(isSet).flatMap((limit) => {
    const open = device.front.filter((row) => fits(device, limits, row, limit));
    return open.length ? [{ limit, bound: Math.min(...open.map((row) => device.measured[limit.column][row])) }] : [];
  });
}

/** The nearest configuration of the front that is better in each objective, with what it gains and gives up. */
function neighbours(device, row) {
  const objectives = DATA.objectives;
  const spans = objectives.map((o) => {
    const values = device.front.map((r) => value(device, o, r));
    return Math.max(...values) - Math.min(...values) || 1;
  });
  const distance = (r) => objectives.reduce((sum, o, i) => sum + Math.abs(value(device, o, r) - value(device, o, row)) / spans[i], 0);
  const worse = (o, r) => loss(o, value(device, o, r)) - loss(o, value(device, o, row));
  const counts = (o, r) => Math.abs(worse(o, r)) > FEW_DIGITS * Math.abs(value(device, o, row));
  const found = new Map();
  for (const objective of objectives) {
    const better = device.front.filter((r) => worse(objective, r) < 0 && counts(objective, r));
    if (!better.length) continue;
    const nearest = better.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    found.set(nearest, [...(found.get(nearest) || []), objective]);
  }
  return [...found].map(([other, better]) => {
    const changed = objectives.filter((o) => counts(o, other));
    return {
      row: other,
      better,
      gains: changed.filter((o) => worse(o, other) < 0).map((o) => [o, worse(o, other)]),
      losses: changed.filter((o) => worse(o, other) > 0).map((o) => [o, worse(o, other)]),
    };
  });
}

/**
 * A configuration's cost by kind and group, and what belongs to no group. The sum of everything is its cost as the tables
 * say; where the run did not record what no choice changes, that is one kind with the switches.
 */
function breakdownOf(device, row, column) {
  const table = device.breakdown[column];
  if (!table) return null;
  const letters = device.measured.bits[row];
  const first = DATA.firstLetter.charCodeAt(0);
  const chosen = DATA.groups.name.map((_, group) => letters.charCodeAt(DATA.layers.group.indexOf(group)) - first);
  const groups = Object.entries(table.by_kind).map(([kind, costs]) => ({ kind, values: chosen.map((c, g) => costs[g][c]) }));
  const total = device.measured[column][row];
  const inGroups = groups.reduce((sum, { values }) => sum + values.reduce((a, b) => a + b, 0), 0);
  const rest = total - inGroups - (table.fixed ?? 0);
  const beside = [];
  if (table.fixed) beside.push({ kind: "fixed", value: table.fixed });
  if (Math.abs(rest) > FEW_DIGITS * Math.abs(total)) beside.push({ kind: table.fixed === null ? "beside" : "switches", value: rest });
  return { total, groups: groups.filter(({ values }) => values.some((v) => v > 0)), beside };
}

/** The factor that 90 % of figures lie within, for a configuration's cost; undefined where the profile knows none. */
function factorOf(device, column, row) {
  const known = device.uncertainty[column];
  return known && known * Math.max(...[...new Set(device.measured.bits[row])].map((letter) => device.widening[letter]));
}

/** A configuration as `hwdse` writes a pick: the columns of the front, and the 90 % intervals of what is predicted. */
function asPick(device, row) {
  const pick = { device: device.name, config_id: device.measured.config_id[row] };
  pick.bits = precisionsOf(device, row).map((precision) => precision.name).join(" ");
  for (const column of device.frontColumns) pick[column] = device.measured[column][row];
  for (const column of Object.keys(device.uncertainty)) {
    const factor = factorOf(device, column, row);
    pick[`${column}_low`] = pick[column] / factor;
    pick[`${column}_high`] = pick[column] * factor;
  }
  return pick;
}

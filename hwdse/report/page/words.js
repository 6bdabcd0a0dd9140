"use strict";
// Numbers and names as a reader wants to see them; the same rules as in the terminal and in the figures.

/** `value` with so many decimals; what is exactly between two goes to the even one, as in the terminal. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  if (!/^50*$/.test(Math.abs(value).toFixed(digits + 70).slice(-70))) return text;
  const size = Math.abs(value);
  const down = size.toFixed(digits + 70).slice(0, -70).replace(/\.$/, "");
  const kept = Number(down.at(-1)) % 2 ? size.toFixed(digits) : down;
  return value < 0 ? `-${kept}` : kept;
}

/** `value` with three significant digits and no exponent between 0.001 and 100 000. */
function number(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toPrecision(digits).replace(/\.?0+(e|$)/, "$1");
  return fixed(value, Math.max(digits - 1 - Math.floor(Math.log10(size)), 0));
}

/** A value of an objective with its unit. */
function withUnit(objective, value) {
  if (objective.factor > 1) return `${fixed(objective.factor * value, 2)} %`;
  return [number(value), objective.unit].filter(Boolean).join("\u00a0");
}

/** A difference of two values of an objective, without its sign: shares in points. */
function difference(objective, value) {
  const size = Math.abs(value);
  if (objective.factor > 1) return `${fixed(objective.factor * size, 2)} points`;
  return withUnit(objective, size);
}

/** Words for an axis, with unit and tier. */
function axisLabel(objective) {
  const inside = [objective.unit, objective.tier].filter(Boolean).join(", ");
  return inside ? `${objective.words} (${inside})` : objective.words;
}

/** Words within a sentence: abbreviations stay as they are. */
function lower(words) {
  return words.slice(0, 2) === words.slice(0, 2).toUpperCase() ? words : words[0].toLowerCase() + words.slice(1);
}

/** A name as text for Plotly, which reads some HTML in its texts. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A word for a POSIX shell. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** How many layers have each precision, the most frequent first. */
function precisionCounts(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name, n]) => `${n} × ${name}`).join(", ");
}

// What is shown follows from `state` alone, and `state` is the part of the address behind #: a link shows the same.
const SHOWN = 500; // rows of the table; the plot has all
const PROVENANCE = ["device", "versions", "config_hash"]; // said of a row, no columns of the table
const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"];
const $ = (selector) => document.querySelector(selector);
const make = (tag, attributes = {}, text = "") => {
  const svg = ["circle", "line", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
};
const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const study = () => STUDIES.find((s) => s.name === state.study) ?? FIRST;
const column = (name) => study().columns.indexOf(name);
const number = (value) => typeof value === "number";
// Of the axes that may be meant, one with enough places on it to show how something goes.
const AXES = ["base_lr", "compute", "params", "train_flops", "embed", "layers", "images", "samples_seen", "step"];
const places = (s, name) => new Set(s.values.map((row) => row[s.columns.indexOf(name)]).filter(number)).size;
const along = (s, enough) => AXES.find((name) => s.columns.includes(name) && places(s, name) >= enough);
const FIRST = STUDIES.find((s) => along(s, 3)) ?? STUDIES.find((s) => along(s, 2)) ?? STUDIES[0];
const visible = () => study().columns.filter((name) => !PROVENANCE.includes(name));
const empty = (value) => value === null || value === "";
const filled = (rows) => visible().filter((name) => rows.some((i) => !empty(study().values[i][column(name)])));
const rounded = (value) => (Number.isInteger(value) ? value : +value.toPrecision(5));
const show = (value) =>
  value === null ? "" : !number(value) ? value : Number.isInteger(value) ? value.toLocaleString("en") : rounded(value);
// The value of a field in a row, or in all of them where it does not vary; undefined where there is no such field.
function reader(name) {
  const at = column(name);
  return at >= 0 ? (row) => row[at] : Object.hasOwn(study().constant, name) ? () => study().constant[name] : undefined;
}

// The words of a filter: each is true or false of a row, and all of them must be true. Numbers are compared as numbers,
// and are equal as they are shown: who copies one from the table, with its commas, finds its row.
const typed = (text) => (text === "" ? NaN : +text.replaceAll(",", ""));
const equal = (a, b) => (number(a) && !Number.isNaN(typed(b)) ? a === typed(b) || rounded(a) === typed(b) : String(a ?? "") === b);
const COMPARE = {
  "=": equal, "!=": (a, b) => !equal(a, b), "~": (a, b) => String(a ?? "").includes(b),
  "<": (a, b) => number(a) && a < typed(b), "<=": (a, b) => number(a) && a <= typed(b),
  ">": (a, b) => number(a) && a > typed(b), ">=": (a, b) => number(a) && a >= typed(b),
};
const words = () => ((state.filter ?? "").match(/([^\s"]|"[^"]*"?)+/g) ?? []).map((word) => word.replaceAll('"', ""));
const parts = (word) => (word.match(/^([^<>=!~]+)(<=|>=|!=|=|<|>|~)(.*)$/) ?? []).slice(1);
function condition(word) {
  const [field, sign, value] = parts(word);
  if (field) {
    const read = reader(field);
    return (row) => read !== undefined && COMPARE[sign](read(row), value);
  }
  // A number in the middle of a hash is not what was looked for, a whole hash is.
  const has = (v, name) => (PROVENANCE.includes(name) ? v === word : String(v ?? "").includes(word));
  const everywhere = Object.entries(study().constant).some(([name, v]) => has(v, name));
  return (row) => everywhere || row.some((v, k) => has(v, study().columns[k]));
}
function chosen() {
  const conditions = words().map(condition);
  const rows = [...study().values.keys()].filter((i) => conditions.every((c) => c(study().values[i])));
  const at = column(state.sort), sign = state.down ? -1 : 1;
  const order = (a, b) => (a === null) - (b === null) || (a < b ? -sign : a > b ? sign : 0); // nothing comes last
  return at < 0 ? rows : rows.sort((i, j) => order(study().values[i][at], study().values[j][at]));
}

function draw() {
  const rows = chosen();
  const unknown = words().map((word) => parts(word)[0]).filter((field) => field && !reader(field));
  $("#count").value = [`${rows.length.toLocaleString("en")} of ${study().values.length.toLocaleString("en")} rows`,
    ...unknown.map((field) => `no field ${field}`)].join(", ");
  $("#how").textContent = how();
  drawTable(rows);
  drawPlot(rows);
}

// The commands beside the rows, what all rows share, and where and with what they were measured.
function how() {
  const constant = Object.entries(study().constant).filter(([, v]) => !empty(v) && v !== 0);
  const several = PROVENANCE.filter((name) => column(name) >= 0).map((name) => {
    const values = [...new Set(study().values.map((row) => row[column(name)]))];
    const more = values.length > 20 ? ", …" : "";
    return `${name}, of a row one of these ${values.length} (point at it to see which): ${values.slice(0, 20).join(", ")}${more}`;
  });
  const all = `of all rows: ${constant.map(([name, value]) => `${name}=${show(value)}`).join("  ")}`;
  return [study().how || "(no README.md with commands beside this file)", all, ...several].join("\n\n");
}

function drawTable(rows) {
  const names = filled(rows);
  $("thead").replaceChildren(make("tr"));
  for (const name of names) {
    const numeric = study().values.some((row) => number(row[column(name)]));
    const head = make("th", numeric ? { class: "number" } : {}, name + (name === state.sort ? (state.down ? " ▾" : " ▴") : ""));
    head.onclick = () => set({ sort: name, down: state.sort === name && !state.down ? "1" : "" });
    $("thead tr").append(head);
  }
  $("tbody").replaceChildren(...rows.slice(0, SHOWN).map((i) => {
    const line = make("tr");
    const cells = names.map((name) => study().values[i][column(name)]);
    line.append(...cells.map((v) => make("td", number(v) ? { class: "number" } : {}, show(v))));
    hover(line, i);
    return line;
  }));
  $("#more").textContent = rows.length > SHOWN ? `and ${rows.length - SHOWN} more; filter to see them` : "";
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) for (const m of [1, 2, 5]) found.push(m * 10 ** e);
    const inside = found.filter((t) => t >= low && t <= high);
    const decades = inside.filter((t) => Number.isInteger(+Math.log10(t).toFixed(9)));
    return decades.length > 2 ? decades : inside.length > 1 ? inside : [...new Set([low, high])];
  }
  const rough = (high - low) / 6 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  return Array.from({ length: 12 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((t) => t <= high);
}
const mark = (t) => (Math.abs(t) >= 1e6 ? t.toExponential().replace("e+", "e") : show(t));
function scale(values, log, from, to) {
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const f = log ? Math.log10 : (v) => v, width = f(high) - f(low) || 1;
  const place = (v) => from + ((f(v) - f(low)) / width) * (to - from);
  return { place, ticks: ticks(low, high, log) };
}

function drawPlot(rows) {
  const svg = $("svg"), [x, y, colour] = ["x", "y", "colour"].map((name) => column(state[name]));
  svg.replaceChildren();
  $("#legend").replaceChildren();
  const usable = (v, log) => Number.isFinite(v) && (!log || v > 0);
  const points = rows.map((i) => ({ i, row: study().values[i] }))
    .filter(({ row }) => usable(row[x], state.logx) && usable(row[y], state.logy));
  const left = rows.length - points.length, why = state.logx || state.logy ? "a number above 0" : "a number";
  $("#left").textContent = left ? `${left.toLocaleString("en")} of these rows are not drawn: they have not ${why} for both axes` : "";
  if (!points.length) return;
  const sx = scale(points.map((p) => p.row[x]), state.logx, 70, 740), sy = scale(points.map((p) => p.row[y]), state.logy, 375, 30);
  for (const t of sx.ticks) {
    svg.append(make("line", { class: "grid", x1: sx.place(t), x2: sx.place(t), y1: 24, y2: 380 }));
    svg.append(make("text", { x: sx.place(t), y: 396, "text-anchor": "middle" }, mark(t)));
  }
  for (const t of sy.ticks) {
    svg.append(make("line", { class: "grid", x1: 65, x2: 745, y1: sy.place(t), y2: sy.place(t) }));
    svg.append(make("text", { x: 60, y: sy.place(t) + 4, "text-anchor": "end" }, mark(t)));
  }
  svg.append(make("text", { x: 405, y: 415, "text-anchor": "middle" }, state.x), make("text", { x: 8, y: 12 }, named(state.y, points)));
  const paint = painter(points.map((p) => (colour < 0 ? "" : p.row[colour])));
  for (const { i, row } of points) {
    const dot = make("circle", { cx: sx.place(row[x]), cy: sy.place(row[y]), r: 4, fill: paint(colour < 0 ? "" : row[colour]) });
    hover(dot, i);
    svg.append(dot);
  }
}
// What the values are of, where all that are drawn are of one metric.
function named(name, points) {
  const metric = reader("metric"); // a table of other people has none
  const metrics = new Set(metric ? points.map((p) => metric(p.row)) : []);
  return name === "value" && metrics.size === 1 ? [...metrics][0] : name;
}
function painter(values) {
  const distinct = [...new Set(values)].sort((a, b) => (number(a) && number(b) ? a - b : String(a) < String(b) ? -1 : 1));
  const many = distinct.length > COLOURS.length, numbers = distinct.every(number);
  const paint = (v) => !many ? COLOURS[distinct.indexOf(v)]
    : numbers ? `hsl(${250 - (250 * distinct.indexOf(v)) / (distinct.length - 1)} 70% 50%)` : COLOURS[distinct.indexOf(v) % COLOURS.length];
  const named = many && numbers ? [distinct[0], distinct.at(-1)] : distinct.slice(0, 40);
  if (distinct.length > 1) $("#legend").append(...named.map((v) => {
    const entry = make("span", {}, "");
    entry.append(make("i", { style: `background:${paint(v)}` }), String(show(v)));
    return entry;
  }));
  return paint;
}

function hover(node, i) {
  node.onmousemove = (event) => {
    const tip = $("#tip"), row = study().values[i], [device, versions, hash] = PROVENANCE.map((name) => reader(name)?.(row));
    const fields = visible().map((name) => [name, row[column(name)]]).filter(([, v]) => !empty(v));
    tip.textContent = fields.map(([name, v]) => `${name} ${show(v)}`).join(" · ") + (hash === undefined ? "" : `\nconfig ${hash} · ${device} · ${versions}`);
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  };
  node.onmouseleave = () => { $("#tip").hidden = true; };
}

function options(select, names, value) {
  $(select).replaceChildren(...names.map((name) => make("option", name === value ? { selected: "" } : {}, name)));
}
// Values for whatever the address leaves open, and the controls as `state` has them.
function settle() {
  state.study = study().name;
  const metric = column("metric"); // of several, one at a time: they share no axis
  const quoted = (word) => (word.includes('"') ? "" : /\s/.test(word) ? `metric="${word}"` : `metric=${word}`);
  if (state.filter === undefined) state.filter = metric < 0 ? "" : quoted(study().values[0][metric]);
  const numeric = study().columns.filter((name) => study().values.some((row) => number(row[column(name)])));
  const first = (names, otherwise) => names.find((name) => numeric.includes(name)) ?? otherwise;
  if (column(state.y) < 0) state.y = first(["value"], numeric.at(-1));
  if (column(state.x) < 0) {
    state.x = along(study(), 3) ?? along(study(), 2) ?? numeric[0];
    const positive = study().values.filter((row) => row[column(state.x)] > 0);
    state.logx = 2 * positive.length > study().values.length ? "1" : "";
  }
  const pairs = (...names) => new Set(study().values.map((row) => JSON.stringify(names.map((name) => row[column(name)])))).size;
  const tells = (name) => column(name) >= 0 && (pairs(state.x, name) > pairs(state.x) || pairs(name) < pairs(state.x));
  const telling = ["embed", "layers", "parametrization", "ordering", "model", "metric"];
  if (column(state.colour) < 0) state.colour = telling.find(tells) ?? "";
  options("#study", STUDIES.map((s) => s.name), state.study);
  for (const name of ["x", "y"]) options(`#${name}`, numeric, state[name]);
  options("#colour", ["", ...visible()], state.colour);
  for (const name of ["logx", "logy"]) $(`#${name}`).checked = Boolean(state[name]);
  if ($("#filter").value !== (state.filter ?? "")) $("#filter").value = state.filter ?? "";
}
function set(changes) {
  Object.assign(state, changes);
  settle();
  history.replaceState(null, "", `#${new URLSearchParams(Object.entries(state).filter(([name, v]) => v || name === "filter"))}`);
  draw();
}
$("#study").oninput = (event) => { // axes and filter are those of its own rows
  for (const name of Object.keys(state)) delete state[name];
  set({ study: event.target.value });
};
for (const name of ["x", "y", "colour", "filter"]) $(`#${name}`).oninput = (event) => set({ [name]: event.target.value });
for (const name of ["logx", "logy"]) $(`#${name}`).oninput = (event) => set({ [name]: event.target.checked ? "1" : "" });
set({});

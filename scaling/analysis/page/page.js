// What is shown follows from `state` alone, and `state` is the part of the address behind #: a link shows the same.
const SHOWN = 500; // rows of the table; the plot has all
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
const study = () => STUDIES.find((s) => s.name === state.study) ?? STUDIES[0];
const column = (name) => study().columns.indexOf(name);
const number = (value) => typeof value === "number";
const show = (value) =>
  value === null ? "" : !number(value) ? value : Number.isInteger(value) ? value.toLocaleString("en") : +value.toPrecision(5);

// The words of a filter: each is true or false of a row, and all of them must be true.
const COMPARE = {
  "=": (a, b) => String(a) === b, "!=": (a, b) => String(a) !== b,
  "<": (a, b) => a !== null && a < +b, "<=": (a, b) => a !== null && a <= +b, ">": (a, b) => a !== null && a > +b, ">=": (a, b) => a !== null && a >= +b,
};
function condition(word) {
  const [, field, sign, value] = word.match(/^(\w+)(<=|>=|!=|=|<|>)(.*)$/) ?? [];
  if (!field) return (row) => row.some((v) => String(v).includes(word));
  const at = column(field);
  if (at >= 0) return (row) => COMPARE[sign](row[at], value);
  const everywhere = field in study().constant ? study().constant[field] : null; // a field that does not vary
  return () => COMPARE[sign](everywhere, value);
}
function chosen() {
  const conditions = (state.filter ?? "").split(/\s+/).filter(Boolean).map(condition);
  const rows = [...study().values.keys()].filter((i) => conditions.every((c) => c(study().values[i])));
  const at = column(state.sort), sign = state.down ? -1 : 1;
  const order = (a, b) => (a === null) - (b === null) || (a < b ? -sign : a > b ? sign : 0); // nothing comes last
  return at < 0 ? rows : rows.sort((i, j) => order(study().values[i][at], study().values[j][at]));
}

function draw() {
  const rows = chosen();
  $("#count").value = `${rows.length.toLocaleString("en")} of ${study().values.length.toLocaleString("en")} rows`;
  const constant = Object.entries(study().constant).map(([name, value]) => `${name}=${show(value)}`).join("  ");
  $("#how").textContent = `${study().how}\n\nof all rows: ${constant}`.trim();
  drawTable(rows);
  drawPlot(rows);
}

function drawTable(rows) {
  $("thead").replaceChildren(make("tr"));
  for (const name of study().columns) {
    const head = make("th", {}, name + (name === state.sort ? (state.down ? " ▾" : " ▴") : ""));
    head.onclick = () => set({ sort: name, down: state.sort === name && !state.down ? "1" : "" });
    $("thead tr").append(head);
  }
  $("tbody").replaceChildren(...rows.slice(0, SHOWN).map((i) => {
    const line = make("tr");
    line.append(...study().values[i].map((v) => make("td", number(v) ? { class: "number" } : {}, show(v))));
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
    return decades.length > 2 ? decades : inside.length > 1 ? inside : [low, high];
  }
  const rough = (high - low) / 6 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  return Array.from({ length: 12 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((t) => t <= high);
}
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
  const usable = (v, log) => number(v) && (!log || v > 0);
  const points = rows.map((i) => ({ i, row: study().values[i] }))
    .filter(({ row }) => usable(row[x], state.logx) && usable(row[y], state.logy));
  if (!points.length) return void svg.append(make("text", { x: 20, y: 40 }, "no row has a number for both axes"));
  const sx = scale(points.map((p) => p.row[x]), state.logx, 70, 740), sy = scale(points.map((p) => p.row[y]), state.logy, 375, 15);
  for (const t of sx.ticks) {
    svg.append(make("line", { class: "grid", x1: sx.place(t), x2: sx.place(t), y1: 10, y2: 380 }));
    svg.append(make("text", { x: sx.place(t), y: 396, "text-anchor": "middle" }, show(t)));
  }
  for (const t of sy.ticks) {
    svg.append(make("line", { class: "grid", x1: 65, x2: 745, y1: sy.place(t), y2: sy.place(t) }));
    svg.append(make("text", { x: 60, y: sy.place(t) + 4, "text-anchor": "end" }, show(t)));
  }
  svg.append(make("text", { x: 405, y: 415, "text-anchor": "middle" }, state.x), make("text", { x: 8, y: 12 }, state.y));
  const paint = painter(points.map((p) => (colour < 0 ? "" : p.row[colour])));
  for (const { i, row } of points) {
    const dot = make("circle", { cx: sx.place(row[x]), cy: sy.place(row[y]), r: 4, fill: paint(colour < 0 ? "" : row[colour]) });
    hover(dot, i);
    svg.append(dot);
  }
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
    const tip = $("#tip"), [device, versions, hash] = study().provenance[i];
    const fields = study().columns.map((name, k) => [name, study().values[i][k]]).filter(([, v]) => v !== null && v !== "");
    tip.textContent = fields.map(([name, v]) => `${name} ${show(v)}`).join(" · ") + `\nconfig ${hash} · ${device} · ${versions}`;
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
  if (state.filter === undefined) state.filter = metric < 0 ? "" : `metric=${study().values[0][metric]}`;
  const numeric = study().columns.filter((name, k) => study().values.some((row) => number(row[k])));
  const first = (names, otherwise) => names.find((name) => numeric.includes(name)) ?? otherwise;
  if (column(state.y) < 0) state.y = first(["value"], numeric.at(-1));
  if (column(state.x) < 0) [state.x, state.logx] = [first(["train_flops", "compute", "params", "step"], numeric[0]), "1"];
  if (column(state.colour) < 0) state.colour = ["embed", "layers", "ordering", "model", "metric"].find((name) => column(name) >= 0) ?? "";
  options("#study", STUDIES.map((s) => s.name), state.study);
  for (const name of ["x", "y"]) options(`#${name}`, numeric, state[name]);
  options("#colour", ["", ...study().columns], state.colour);
  for (const name of ["logx", "logy"]) $(`#${name}`).checked = Boolean(state[name]);
  if ($("#filter").value !== (state.filter ?? "")) $("#filter").value = state.filter ?? "";
}
function set(changes) {
  Object.assign(state, changes);
  settle();
  history.replaceState(null, "", `#${new URLSearchParams(Object.entries(state).filter(([name, v]) => v || name === "filter"))}`);
  draw();
}
$("#study").oninput = (event) => set({ study: event.target.value, filter: undefined });
for (const name of ["x", "y", "colour", "filter"]) $(`#${name}`).oninput = (event) => set({ [name]: event.target.value });
for (const name of ["logx", "logy"]) $(`#${name}`).oninput = (event) => set({ [name]: event.target.checked ? "1" : "" });
set({});

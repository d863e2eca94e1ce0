// Which rows plotly is given, and how. What is shown follows from `state`, the part of the address behind #: a link shows
// the same. Plot and table, their zoom, hover, legend, selection and export to SVG are plotly's.
const VECTORS = 2000; // points that are drawn as such; more are drawn by WebGL
const SHOWN = 500; // rows of the table; the plot and the CSV have all
const LETTER = 7; // pixels, of the table
const PROVENANCE = ["device", "versions", "config_hash"]; // said of a point, no columns of the table
const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"];
// Nothing leaves the page: without the button that uploads a chart.
const SAVED = { displaylogo: false, plotlyServerURL: "", modeBarButtonsToRemove: ["sendChartToCloud"], responsive: true, toImageButtonOptions: { format: "svg", filename: "plot" } };
const $ = (id) => document.getElementById(id);
const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const number = (value) => typeof value === "number";
const empty = (value) => value === null || value === "";
// Of the axes that may be meant, one with enough places on it to show how something goes.
const AXES = ["base_lr", "compute", "params", "train_flops", "embed", "layers", "images", "samples_seen", "step"];
const places = (s, name) => new Set(s.values.map((row) => row[s.columns.indexOf(name)]).filter(number)).size;
const along = (s, enough) => AXES.find((name) => s.columns.includes(name) && places(s, name) >= enough);
const FIRST = STUDIES.find((s) => along(s, 3)) ?? STUDIES.find((s) => along(s, 2)) ?? STUDIES[0];
const study = () => STUDIES.find((s) => s.name === state.study) ?? FIRST;
const column = (name) => study().columns.indexOf(name);
const visible = () => study().columns.filter((name) => !PROVENANCE.includes(name));
const rounded = (value) => (Number.isInteger(value) ? value : +value.toPrecision(5));
const show = (value) => value === null ? "" : !number(value) ? value : Number.isInteger(value) ? value.toLocaleString("en") : rounded(value);
const escaped = (value) => (typeof value === "string" ? value.replaceAll("&", "&amp;").replaceAll("<", "&lt;") : value); // plotly takes some tags
const plain = (value) => escaped(String(show(value)));
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
  const rows = study().values.filter((row) => conditions.every((c) => c(row)));
  const at = column(state.sort), sign = state.down ? -1 : 1;
  const order = (a, b) => (a === null) - (b === null) || (a < b ? -sign : a > b ? sign : 0); // nothing comes last
  return at < 0 ? rows : rows.sort((a, b) => order(a[at], b[at]));
}

let drawn = []; // the rows of each trace
const GROUPS = 40, SCALED = Symbol("scaled"), OTHERS = Symbol("others"), GREY = "#888888";
// One trace a value of the colour, so that the legend hides it, and one for the rest of very many; of many numbers one,
// with a scale, and one for the rows without a number.
function traces(rows) {
  const [x, y, colour] = [state.x, state.y, state.colour].map(column), hidden = JSON.parse(state.hidden || "[]");
  const valueOf = (row) => (empty(row[colour]) ? null : row[colour] ?? null);
  const order = (a, b) => (a === null) - (b === null) || (number(a) && number(b) ? a - b : String(a) < String(b) ? -1 : 1);
  const values = [...new Set(rows.map(valueOf))].sort(order), filled = values.filter((value) => value !== null);
  const scaled = filled.length > COLOURS.length && filled.every(number);
  const keys = scaled ? [SCALED, ...values.slice(filled.length)] : values.length > GROUPS ? [...values.slice(0, GROUPS), OTHERS] : values;
  const groups = new Map(keys.map((key) => [key, []]));
  for (const row of rows) (groups.get(valueOf(row)) ?? groups.get(scaled ? SCALED : OTHERS)).push(row);
  const label = (key) => (key === SCALED ? ["", ""] : key === OTHERS ? [`${values.length - GROUPS} others`, "others"] : [plain(key ?? "nothing"), String(key)]);
  const about = study().columns.map((name, k) => (rows.some((row) => !empty(row[k])) ? `${name} %{customdata[${k}]}` : "")).filter(Boolean).join("<br>");
  drawn = [...groups.values()];
  return [...groups].map(([key, those], k) => {
    const [name, meta] = label(key);
    return {
      type: rows.length > VECTORS ? "scattergl" : "scatter", mode: "markers", name, meta,
      x: those.map((row) => row[x]), y: those.map((row) => row[y]),
      customdata: those.map((row) => row.map(escaped)), hovertemplate: `${about}<extra></extra>`,
      visible: hidden.includes(meta) ? "legendonly" : true,
      marker: key === SCALED ? { color: those.map((row) => row[colour]), showscale: true, colorbar: { title: { text: state.colour } }, size: 7 }
        : { color: scaled || key === OTHERS ? GREY : COLOURS[k % COLOURS.length], size: 7, opacity: 0.8 },
    };
  });
}
// What the values are of, where all that are drawn are of one metric.
function named(name, rows) {
  const metric = reader("metric"), metrics = new Set(metric ? rows.map(metric) : []); // a table of other people has none
  return plain(name === "value" && metrics.size === 1 ? [...metrics][0] : name);
}
function draw() {
  const rows = chosen(), x = column(state.x), y = column(state.y);
  const usable = (v, log) => number(v) && (!log || v > 0);
  const points = rows.filter((row) => usable(row[x], state.logx) && usable(row[y], state.logy)), left = rows.length - points.length;
  const why = state.logx || state.logy ? "a number above 0" : "a number";
  $("left").value = left ? `${left.toLocaleString("en")} of these rows are not drawn: they have not ${why} for both axes` : "";
  const unknown = words().map((word) => parts(word)[0]).filter((field) => field && !reader(field));
  $("count").value = [`${rows.length.toLocaleString("en")} of ${study().values.length.toLocaleString("en")} rows`, ...unknown.map((field) => `no field ${field}`)].join(", ");
  $("how").textContent = how();
  const ranges = JSON.parse(state.range || "[null,null]");
  const axis = (name, log, range) => ({ title: { text: name }, type: log ? "log" : "linear", exponentformat: "power", ...(range ? { range } : { autorange: true }) });
  Plotly.react("plot", traces(points), {
    margin: { l: 70, r: 20, t: 35, b: 50 }, dragmode: "zoom", hovermode: "closest", showlegend: true, legend: { title: { text: plain(state.colour) } },
    xaxis: axis(plain(state.x), state.logx, ranges[0]), yaxis: axis(named(state.y, points), state.logy, ranges[1]),
  }, SAVED);
  list(rows);
}
let listed = [];
function list(rows) {
  listed = rows;
  $("more").value = rows.length > SHOWN ? `and ${(rows.length - SHOWN).toLocaleString("en")} more; filter or select to see them` : "";
  const names = visible().filter((name) => rows.some((row) => !empty(row[column(name)])));
  const align = names.map((name) => (rows.some((row) => number(row[column(name)])) ? "right" : "left"));
  const values = names.map((name) => rows.slice(0, SHOWN).map((row) => plain(row[column(name)])));
  const columnwidth = names.map((name, k) => LETTER * (3 + Math.max(name.length, ...values[k].map((v) => v.length)))); // a number is never cut
  const width = Math.max($("table").clientWidth, columnwidth.reduce((a, b) => a + b, 0));
  Plotly.react("table", [{
    type: "table", columnwidth, header: { values: names.map(plain), align, fill: { color: "#eee" } },
    cells: { values, align, fill: { color: "#fff" }, height: 22 },
  }], { width, height: 420, margin: { l: 0, r: 0, t: 0, b: 0 } }, { displayModeBar: false });
}
// The commands beside the rows, what all rows share, and where and with what they were measured.
function how() {
  const constant = Object.entries(study().constant).filter(([, v]) => !empty(v) && v !== 0);
  return [study().how || "(no README.md with commands beside this file)", `of all rows: ${constant.map(([name, value]) => `${name}=${show(value)}`).join("  ")}`].join("\n\n");
}
function csv() {
  const quoted = (v) => (/[",\n]/.test(v ?? "") ? `"${v.replaceAll('"', '""')}"` : v ?? "");
  return [study().columns, ...listed].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}
$("csv").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "rows.csv";
  link.click();
};

const options = (id, names, value) => $(id).replaceChildren(...names.map((name) => new Option(name, name, name === value, name === value)));
// Values for whatever the address leaves open, and the controls as `state` has them.
function settle() {
  state.study = study().name;
  const metric = column("metric"); // of several, one at a time: they share no axis
  const quoted = (word) => (word.includes('"') ? "" : /\s/.test(word) ? `metric="${word}"` : `metric=${word}`);
  if (state.filter === undefined) state.filter = metric < 0 ? "" : quoted(study().values[0][metric]);
  const numeric = study().columns.filter((name) => study().values.some((row) => number(row[column(name)])));
  if (column(state.y) < 0) state.y = numeric.includes("value") ? "value" : numeric.at(-1);
  if (column(state.x) < 0) {
    state.x = along(study(), 3) ?? along(study(), 2) ?? numeric[0];
    const positive = study().values.filter((row) => row[column(state.x)] > 0);
    state.logx = 2 * positive.length > study().values.length ? "1" : "";
  }
  const pairs = (...names) => new Set(study().values.map((row) => JSON.stringify(names.map((name) => row[column(name)])))).size;
  const tells = (name) => column(name) >= 0 && (pairs(state.x, name) > pairs(state.x) || pairs(name) < pairs(state.x));
  if (column(state.colour) < 0) state.colour = ["embed", "layers", "parametrization", "ordering", "model", "metric"].find(tells) ?? "";
  options("study", STUDIES.map((s) => s.name), state.study);
  for (const id of ["x", "y"]) options(id, numeric, state[id]);
  for (const id of ["colour", "sort"]) options(id, ["", ...visible()], state[id] ?? "");
  for (const id of ["logx", "logy", "down"]) $(id).checked = Boolean(state[id]);
  if ($("filter").value !== state.filter) $("filter").value = state.filter;
}
function remember(changes) {
  Object.assign(state, changes);
  history.replaceState(null, "", `#${new URLSearchParams(Object.entries(state).filter(([name, v]) => v || name === "filter"))}`);
}
function set(changes) {
  remember(changes);
  settle();
  remember({});
  draw();
}
$("study").oninput = (event) => { // axes and filter are those of its own rows
  for (const name of Object.keys(state)) delete state[name];
  set({ study: event.target.value });
};
for (const id of ["filter", "sort"]) $(id).oninput = (event) => set({ [id]: event.target.value });
for (const id of ["x", "y"]) $(id).oninput = (event) => set({ [id]: event.target.value, range: "" });
$("colour").oninput = (event) => set({ colour: event.target.value, hidden: "" });
for (const id of ["logx", "logy"]) $(id).oninput = (event) => set({ [id]: event.target.checked ? "1" : "", range: "" });
$("down").oninput = (event) => set({ down: event.target.checked ? "1" : "" });
set({});
const { plot } = window;
plot.on("plotly_relayout", () => {
  const ranges = [plot.layout.xaxis, plot.layout.yaxis].map((axis) => (axis.autorange ? null : axis.range));
  remember({ range: ranges.some(Boolean) ? JSON.stringify(ranges) : "" });
});
plot.on("plotly_restyle", () => {
  const hidden = plot.data.filter((trace) => trace.visible === "legendonly").map((trace) => trace.meta);
  remember({ hidden: hidden.length ? JSON.stringify(hidden) : "" });
});
plot.on("plotly_selected", (event) => list(event ? event.points.map((p) => drawn[p.curveNumber][p.pointIndex]) : chosen()));
plot.on("plotly_deselect", () => list(chosen()));

"use strict";
// What moves in a report: charts from the data in the page, sorting and filtering, light and dark. The address after #
// holds every choice, so that a link shows what its sender saw: #snapshot=swat90&pass=fwd&sort=-cycles&filter=layer4
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const state = {};

  // The address ----------------------------------------------------------------------------------------------------

  function readAddress() {
    for (const key of Object.keys(state)) delete state[key];
    const text = location.hash.slice(1);
    if (text.includes("=")) for (const [key, value] of new URLSearchParams(text)) state[key] = value;
  }

  function keep(key, value) {
    if (value) state[key] = value; else delete state[key];
    try {
      history.replaceState(null, "", "#" + new URLSearchParams(state));
    } catch { /* some browsers let no file change its address */ }
  }

  // Light and dark -------------------------------------------------------------------------------------------------

  const THEMES = ["auto", "light", "dark"];

  function showTheme() {
    const theme = THEMES.includes(state.theme) ? state.theme : "auto";
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    $("theme").textContent = `theme: ${theme}`;
  }

  function nextTheme() {
    const next = THEMES[(THEMES.indexOf(state.theme || "auto") + 1) % THEMES.length];
    keep("theme", next === "auto" ? "" : next);
    showTheme();
    draw();
  }

  // Tables ---------------------------------------------------------------------------------------------------------

  function prepareTable(table) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const key = head.dataset.key;
        const descending = head.ariaSort ? head.ariaSort === "ascending" : head.classList.contains("n");
        keep("sort", (descending ? "-" : "") + key);
        sort(table);
      });
    }
    [...table.tBodies[0].rows].forEach((row, i) => {
      row.place = i;
      row.words = row.textContent.toLowerCase() + " " + [...row.cells].map((c) => c.textContent).join(" ").toLowerCase();
    });
  }

  function sort(table) {
    const descending = (state.sort || "").startsWith("-");
    const key = (state.sort || "").replace(/^-/, "");
    const heads = [...table.tHead.rows[0].cells];
    const at = heads.findIndex((head) => head.dataset.key === key);
    heads.forEach((head, i) => { head.ariaSort = i === at ? (descending ? "descending" : "ascending") : null; });
    const numeric = at >= 0 && heads[at].classList.contains("n");
    const value = (row) => numeric ? (row.cells[at].dataset.v ?? "") : row.cells[at].textContent;
    const compare = (a, b) => {
      if (at < 0) return a.place - b.place;
      const [x, y] = [value(a), value(b)];
      if (numeric && (x === "" || y === "")) return (x === "") - (y === "") || a.place - b.place;  // nothing goes last
      const order = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
      return (descending ? -order : order) || a.place - b.place;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }

  function filter(table) {
    const words = (state.filter || "").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !words.every((word) => row.words.includes(word));
      shown += !row.hidden;
    }
    const all = table.tBodies[0].rows.length;
    $("shown").textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
    table.closest("section").classList.toggle("long", shown > 100);
  }

  // Charts ---------------------------------------------------------------------------------------------------------

  // Okabe and Ito's, which colour-blind readers tell apart; slots bring their own, waiting for memory hatched.
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#c9b400", "#7b4fb5", "#8c6239"];
  const MANY = 70; // layers that do not fit beside each other
  let paper = false; // whether what is drawn is for print

  // Plotly reads tags and entities in its texts; a name is a name.
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const short = (text) => plain(text.length > 26 ? text.slice(0, 12) + "…" + text.slice(-13) : text);
  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 2 : 0 });
  const precise = (value) => value >= 100 || Number.isInteger(value) ? number(value) : String(Number(value.toPrecision(3)));
  const share = (value) => (100 * value).toFixed(1) + " %";
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const choice = (name) => document.querySelector(`select[data-choice="${name}"]`)?.value ?? "";

  function put(groups, key, i) {
    if (groups.has(key)) groups.get(key).push(i); else groups.set(key, [i]);
  }

  // Row numbers of each layer with work, for a snapshot, and a pass or all of them.
  function layersOf(snapshot, pass) {
    const { rows, names } = data;
    const found = new Map();
    rows.cycles.forEach((cycles, i) => {
      const wanted = names.snapshot[rows.snapshot[i]] === snapshot && (!pass || names.pass[rows.pass[i]] === pass);
      if (wanted && cycles) put(found, rows.layer[i], i);
    });
    return found;
  }

  // A sum with a part that is not known is not known.
  const sum = (column, rows) => rows.reduce((total, i) => total === null || column[i] === null ? null : total + column[i], 0);
  const slotsOf = (rows) => rows.reduce((total, i) => total + data.rows.cycles[i] * data.rows.multipliers[i], 0);

  function causesOf(groups, asShare) {
    return data.slots.map(({ words, colour, values }, i) => {
      const name = plain(words);
      const counts = groups.map((rows) => sum(values, rows));
      const shares = groups.map((rows, j) => counts[j] / (slotsOf(rows) || 1));
      const [color, hatch] = colour.length ? colour : [COLOURS[i % COLOURS.length], "."];
      return {
        name, color, hatch, values: asShare ? shares : counts,
        said: counts.map((count, j) => `${name}: ${share(shares[j])}, ${number(count)}`),
      };
    }).filter((series) => series.values.some(Boolean));
  }

  // Draws series over labels: bars side by side or stacked, or dots; upright where that fits, else lying.
  function chart(id, labels, series, { stack = false, dots = false, lying = false, format = "~s", suffix = "", line } = {}) {
    const place = $(`chart-${id}`);
    if (!place) return;
    const width = paper ? 680 : place.clientWidth;
    const narrow = width < 640;
    const flat = lying || narrow || labels.length > MANY;
    const deep = stack || dots ? 1 : Math.max(series.length, 1) * 0.75;
    const legend = 19 * Math.ceil(series.length / (narrow ? 1 : 5));
    const height = flat ? 50 + legend + labels.length * Math.max(lying ? 26 : 17, 17 * deep) : paper ? 380 : 440;
    const [text, lines] = paper ? ["#1b1f24", "#d0d7de"] : [style("--text"), style("--line")];
    const index = labels.map((_, i) => i);
    const first = index.map((i) => series.find((s) => s.values[i])); // what the name of a bar is shown with
    const traces = series.map((s) => ({
      type: dots ? "scatter" : "bar", mode: "markers", name: s.name, orientation: flat ? "h" : "v",
      [flat ? "y" : "x"]: index, [flat ? "x" : "y"]: s.values.map((value) => value || null),
      hovertext: s.said.map((text, i) => (first[i] === s ? `<b>${plain(labels[i])}</b><br>${text}` : text)),
      hoverinfo: "text",
      marker: dots
        ? { color: s.color, size: 8, symbol: s.hollow ? "circle-open" : "circle", line: { width: s.hollow ? 1.5 : 0 } }
        : { color: s.color, line: { width: 0 }, pattern: { shape: s.hatch ?? "", size: 5, solidity: 0.35, fillmode: "overlay" } },
    }));
    const names = {
      tickvals: index, ticktext: labels.map(short), automargin: true, tickfont: { size: labels.length > 20 ? 10 : 12 },
      range: flat ? [labels.length - 0.5, -0.5] : [-0.5, labels.length - 0.5], showgrid: false, zeroline: false,
      ...(flat ? {} : { tickangle: -65 }),
    };
    const values = {
      tickformat: format, ticksuffix: suffix, gridcolor: lines, zerolinecolor: lines, rangemode: "tozero",
      automargin: true, fixedrange: true, nticks: narrow ? 5 : 8, ...(flat ? { side: "top" } : {}),
    };
    const touch = matchMedia("(pointer: coarse)").matches;
    const layout = {
      width, height, barmode: stack ? "stack" : "group", bargap: 0.2, showlegend: series.length > 1,
      hovermode: flat ? "y unified" : "x unified", dragmode: touch ? false : "zoom", uirevision: "kept",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: touch || paper ? 12 : 34, t: 8, b: 8 },
      modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: style("--soft"), activecolor: text },
      font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: style("--raised"), bordercolor: lines, font: { color: style("--text") } },
      legend: {
        orientation: "h", x: 0, xref: "container", y: 1, yref: "container", yanchor: "top", traceorder: "normal",
        maxheight: 0.9, font: { size: narrow ? 10 : 12 },
      },
      [flat ? "yaxis" : "xaxis"]: names, [flat ? "xaxis" : "yaxis"]: values,
      shapes: line === undefined ? [] : [{
        type: "line", line: { color: text, width: 1, dash: "dot" },
        ...(flat ? { x0: line, x1: line, y0: 0, y1: 1, yref: "paper" } : { y0: line, y1: line, x0: 0, x1: 1, xref: "paper" }),
      }],
    };
    Plotly.react(place, traces, layout, {
      displaylogo: false, showTips: false, displayModeBar: touch || paper ? false : "hover",
      modeBarButtons: [["toImage", "resetScale2d"]],
    });
  }

  function drawSlots() {
    const { rows, names } = data;
    const groups = new Map();
    rows.cycles.forEach((_, i) => {
      put(groups, `${names.snapshot[rows.snapshot[i]]}, ${data.passes[names.pass[rows.pass[i]]]}`, i);
    });
    const options = { stack: true, lying: true, format: ".0%" };
    chart("slots", [...groups.keys()], causesOf([...groups.values()], true), options);
  }

  function drawLayers() {
    const [snapshot, pass] = [choice("snapshot"), choice("pass")];
    const layers = layersOf(snapshot, pass);
    const labels = [...layers.keys()].map((layer) => data.names.layer[layer]);
    const groups = [...layers.values()];
    const asShare = choice("unit") !== "count";
    chart("causes", labels, causesOf(groups, asShare), { stack: true, format: asShare ? ".0%" : "~s" });

    const bars = (name, column, color) => {
      const values = groups.map((rows) => sum(column, rows));
      return { name: plain(name), color, values, said: values.map((value) => `${plain(name)}: ${number(value)} cycles`) };
    };
    const cycles = [bars(data.machine, data.rows.cycles, COLOURS[0])];
    if (data.baseline !== null) cycles.push(bars(data.baseline, data.rows.baseline_cycles, COLOURS[1]));
    chart("cycles", labels, cycles);

    drawSpeedup(snapshot, pass);
    const stacked = (id, columns, unit, scale) => chart(id, labels, columns.map(({ words, values: column }, i) => {
      const name = plain(words);
      const sums = groups.map((rows) => sum(column, rows));
      const values = sums.map((value) => value === null ? null : value * scale);
      const said = values.map((value) => `${name}: ${value === null ? "not known" : `${precise(value)} ${unit}`}`);
      return { name, color: COLOURS[i % COLOURS.length], values, said };
    }), { stack: true, suffix: scale === 1 ? "B" : " mJ", format: scale === 1 ? "~s" : "~g" });
    stacked("bytes", data.places[choice("place")] ?? [], "bytes", 1);
    stacked("energy", data.energy, "mJ", 1e-9);
  }

  function drawSpeedup(snapshot, pass) {
    const { rows, names } = data;
    const overBaseline = choice("over") === "baseline";
    const reference = overBaseline ? null : layersOf(data.dense, pass);
    const wanted = names.snapshot.filter((name) => overBaseline || name !== data.dense);
    const found = wanted.map((name) => layersOf(name, pass));
    const layers = [...new Set(found.flatMap((map) => [...map.keys()]))].sort((a, b) => a - b);
    const each = (column, group) => sum(column, group) / rows.samples[group[0]];
    const ratio = (group, layer, column) => {
      if (!group) return null;
      if (overBaseline) return sum(rows.baseline_cycles, group) / sum(rows.cycles, group);
      const other = reference.get(layer);
      return other && sum(column, group) ? each(column, other) / each(column, group) : null;
    };
    const series = wanted.map((name, i) => {
      const values = layers.map((layer) => ratio(found[i].get(layer), layer, rows.cycles));
      const color = COLOURS[names.snapshot.indexOf(name) % COLOURS.length];
      return { name: plain(name), color, values, said: values.map((value) => `${plain(name)}: ${number(value ?? 0)}×`) };
    });
    const at = wanted.indexOf(snapshot);
    if (!overBaseline && at >= 0) {
      const values = layers.map((layer) => ratio(found[at].get(layer), layer, data.effectual));
      const name = `effectual work alone, ${plain(snapshot)}`;
      series.push({ name, color: series[at].color, hollow: true, values, said: values.map((v) => `${name}: ${number(v ?? 0)}×`) });
    }
    const labels = layers.map((layer) => names.layer[layer]);
    chart("speedup", labels, series, { dots: true, suffix: "×", format: "~g", line: 1 });
  }

  // What other pages than a run's are drawn from: groups of bars, or marks.
  function drawOthers() {
    for (const { name, labels, series, suffix, scatter, x, y, lines } of data.charts ?? []) {
      if (scatter) { drawScatter(name, scatter, x, y, lines); continue; }
      chart(name, labels, Object.entries(series).map(([word, values], i) => ({
        name: plain(word), color: COLOURS[i % COLOURS.length], values,
        said: values.map((value) => `${plain(word)}: ${value === null ? "not known" : precise(value) + suffix}`),
      })), { suffix, format: "~g", line: suffix === "×" ? 1 : undefined });
    }
  }

  function drawScatter(name, scatter, x, y, joined) {
    const place = $(`chart-${name}`);
    const [text, lines] = paper ? ["#1b1f24", "#d0d7de"] : [style("--text"), style("--line")];
    const traces = Object.entries(scatter).map(([word, points], i) => ({
      type: "scatter", mode: joined ? "lines+markers" : "markers", name: plain(word), x: points.x, y: points.y,
      hoverinfo: "text", hovertext: points.said.map(plain),
      marker: joined
        ? { color: COLOURS[i % COLOURS.length], size: 8 }
        : { color: COLOURS[1 - i], size: i ? 11 : 8, symbol: i ? "diamond" : "circle-open", line: { width: 1.5 } },
    }));
    const axis = (title) => ({
      title: { text: title }, gridcolor: lines, zerolinecolor: lines, automargin: true,
      ...(joined ? { rangemode: "tozero" } : { type: "log", dtick: 1 }),
    });
    Plotly.react(place, traces, {
      width: paper ? 680 : place.clientWidth, height: 420, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis(x), yaxis: axis(y), font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 12 },
      margin: { l: 8, r: 12, t: 8, b: 8 }, legend: { orientation: "h", y: 1, yanchor: "bottom" },
      hoverlabel: { bgcolor: style("--raised"), bordercolor: lines, font: { color: style("--text") } },
    }, { displaylogo: false, displayModeBar: false });
  }

  // The picture of a layer: its cycles by cause, in every snapshot and pass.
  function openPicture(layer) {
    const { rows, names } = data;
    const found = new Map();
    rows.cycles.forEach((cycles, i) => {
      if (rows.layer[i] !== layer || !cycles) return;
      put(found, `${names.snapshot[rows.snapshot[i]]}, ${data.passes[names.pass[rows.pass[i]]]}`, i);
    });
    const groups = [...found.values()];
    $("picture-title").textContent = names.layer[layer];
    $("picture").showModal();
    keep("layer", names.layer[layer]);
    $("picture-said").replaceChildren(...data.advice.filter(([name]) => name === names.layer[layer]).map(([, said]) => {
      const line = document.createElement("p");
      line.textContent = said;
      return line;
    }));
    const series = causesOf(groups, false).map((cause) => ({
      ...cause, values: cause.values.map((slots, j) => slots / rows.multipliers[groups[j][0]]),
    }));
    chart("picture", [...found.keys()], series, { stack: true, lying: true });
  }

  function preparePictures(table) {
    const drawn = data.rows.cycles.flatMap((cycles, i) => cycles ? [i] : []);
    [...table.tBodies[0].rows].forEach((row, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.ariaHasPopup = "dialog";
      button.textContent = row.cells[0].textContent;
      row.cells[0].replaceChildren(button);
      button.addEventListener("click", () => openPicture(data.rows.layer[drawn[i]]));
    });
    $("picture").addEventListener("close", () => keep("layer", ""));
  }

  function draw() {
    if (data.rows) { drawSlots(); drawLayers(); }
    drawOthers();
  }

  // Putting it together --------------------------------------------------------------------------------------------

  const tables = [...document.querySelectorAll("table.sortable")];

  function showAddress() {
    readAddress();
    showTheme();
    for (const select of document.querySelectorAll("select[data-choice]")) {
      const value = state[select.dataset.choice];
      if ([...select.options].some((option) => option.value === value)) select.value = value;
    }
    if ($("filter")) $("filter").value = state.filter ?? "";
    for (const table of tables) { sort(table); filter(table); }
    draw();
    const chosen = data.rows ? data.names.layer.indexOf(state.layer) : -1;
    if (chosen >= 0 && !$("picture").open) openPicture(chosen);
  }

  tables.forEach(prepareTable);
  if (data.rows) preparePictures($("layer-table"));
  $("theme").hidden = false;
  $("theme").addEventListener("click", nextTheme);
  $("filter")?.addEventListener("input", (event) => {
    keep("filter", event.target.value);
    tables.forEach(filter);
  });
  document.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("change", (event) => {
    if (!event.target.dataset?.choice) return;
    keep(event.target.dataset.choice, event.target.value);
    drawLayers();
  });
  addEventListener("hashchange", () => { if (location.hash.includes("=")) showAddress(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth, waiting;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar comes and goes
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 150);
  });
  const print = (now) => () => {
    paper = now;
    if (now) root.dataset.theme = "light"; else showTheme();
    draw();
  };
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));
  showAddress();
  root.dataset.ready = "yes";
})();

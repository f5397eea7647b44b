"use strict";
// Plays the film in the page: frames of the array, cycle by cycle, with what it waits for in between. The totals in the
// table are added up here, from the frames, beside those that `simulate` counted.
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;
  const { grid, causes, cycles, multipliers } = data;
  const perUnit = grid.down * grid.across * grid.lanes;
  const tall = grid.lanes / grid.wide;
  const [unitWidth, unitHeight] = [grid.across * grid.wide, grid.down * tall];

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  if (!("DecompressionStream" in window)) {
    $("equal").textContent = "This browser is too old to unpack the film: it has no DecompressionStream.";
    return;
  }
  const frames = await unpacked(data.frames);
  for (const each of data.watched) each.values = await unpacked(each.levels);

  // Of each cycle the frame that the film has for it (while the array waits, the last one), and the cause of waiting.
  const frameOf = new Int32Array(cycles);
  const waitsFor = new Int8Array(cycles).fill(-1);
  let now = 0, frame = 0;
  for (const [cause, count] of data.segments) {
    for (let i = 0; i < count; i += 1, now += 1) {
      frameOf[now] = cause < 0 ? frame : Math.max(0, frame - 1);
      waitsFor[now] = cause;
      if (cause < 0) frame += 1;
    }
  }

  // Slots by cause, of each cycle and up to and with it.
  const kinds = causes.length;
  const counts = new Uint32Array(cycles * kinds);
  const until = new Float64Array((cycles + 1) * kinds);
  for (let t = 0; t < cycles; t += 1) {
    const row = t * kinds;
    if (waitsFor[t] >= 0) counts[row + waitsFor[t]] = multipliers;
    else {
      const from = frameOf[t] * multipliers;
      for (let i = from; i < from + multipliers; i += 1) counts[row + frames[i]] += 1;
    }
    for (let k = 0; k < kinds; k += 1) until[row + kinds + k] = until[row + k] + counts[row + k];
  }
  const totals = causes.map((_, k) => until[cycles * kinds + k]);
  const isEqual = totals.every((total, k) => total === data.counted[k]);

  const state = { cycle: 0, unit: 0, playing: false, carried: 0, before: 0 };
  const number = (value) => value.toLocaleString("en");
  const codeAt = (t, i) => (waitsFor[t] >= 0 ? waitsFor[t] : frames[frameOf[t] * multipliers + i]);
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  // Black or white, whichever stands out more from a colour (WCAG's relative luminance).
  const linear = (v) => (v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const inkOn = ([r, g, b]) => (0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.179 ? "#000" : "#fff");
  const rgb = causes.map(({ fill }) => [1, 3, 5].map((at) => parseInt(fill.slice(at, at + 2), 16)));

  // Where multiplier i of a unit is in it, in cells.
  const place = (i) => {
    const lane = i % grid.lanes, pe = (i - lane) / grid.lanes;
    const column = pe % grid.across, row = (pe - column) / grid.across;
    return [column * grid.wide + (lane % grid.wide), row * tall + Math.floor(lane / grid.wide)];
  };
  const places = Array.from({ length: perUnit }, (_, i) => place(i));
  const columns = Math.min(grid.columns, grid.units);
  const rows = Math.ceil(grid.units / columns);
  const cells = document.createElement("canvas"); // a pixel a multiplier, and one between units
  cells.width = columns * (unitWidth + 1) - 1;
  cells.height = rows * (unitHeight + 1) - 1;
  const cellsOf = cells.getContext("2d");
  const pixels = cellsOf.createImageData(cells.width, cells.height);

  // A canvas as wide as its place, in device pixels; its context in CSS pixels.
  function sized(canvas, height) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.style.height = `${height}px`;
    const wanted = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return [context, width];
  }

  function drawArray() {
    const line = style("--line").replace("#", "");
    const back = [0, 2, 4].map((at) => parseInt(line.slice(at, at + 2), 16));
    for (let i = 0; i < pixels.data.length; i += 4) [pixels.data[i], pixels.data[i + 1], pixels.data[i + 2], pixels.data[i + 3]] = [...back, 255];
    for (let unit = 0; unit < grid.units; unit += 1) {
      const [left, top] = [(unit % columns) * (unitWidth + 1), Math.floor(unit / columns) * (unitHeight + 1)];
      for (let i = 0; i < perUnit; i += 1) {
        const [x, y] = places[i];
        const at = 4 * ((top + y) * cells.width + left + x);
        const colour = rgb[codeAt(state.cycle, unit * perUnit + i)];
        pixels.data[at] = colour[0]; pixels.data[at + 1] = colour[1]; pixels.data[at + 2] = colour[2];
      }
    }
    cellsOf.putImageData(pixels, 0, 0);
    const scale = Math.min($("array").clientWidth / cells.width, 34, 560 / cells.height);
    const [context] = sized($("array"), Math.max(1, cells.height * scale));
    context.imageSmoothingEnabled = false;
    context.drawImage(cells, 0, 0, cells.width * scale, cells.height * scale);
    state.scale = scale;
    if (grid.units > 1) {
      context.strokeStyle = style("--mark");
      context.lineWidth = 2;
      const [x, y] = [(state.unit % columns) * (unitWidth + 1), Math.floor(state.unit / columns) * (unitHeight + 1)];
      context.strokeRect(x * scale - 1, y * scale - 1, unitWidth * scale + 2, unitHeight * scale + 2);
    }
  }

  // One unit, its slots as large as they may be, each with its letter where there is room.
  function drawUnit() {
    $("one").hidden = grid.units === 1 && perUnit > 1024 && !data.watched.length;
    if ($("one").hidden) return;
    const size = Math.min(30, $("inside").clientWidth / unitWidth);
    const [context] = sized($("inside"), size * unitHeight);
    context.textAlign = "center"; context.textBaseline = "middle"; context.font = `600 ${size * 0.55}px sans-serif`;
    for (let i = 0; i < perUnit; i += 1) {
      const cause = causes[codeAt(state.cycle, state.unit * perUnit + i)];
      const [x, y] = places[i];
      context.fillStyle = cause.fill;
      context.fillRect(x * size, y * size, size - 1, size - 1);
      if (size < 12) continue;
      context.fillStyle = inkOn(rgb[causes.indexOf(cause)]);
      context.fillText(cause.key, (x + 0.5) * size - 0.5, (y + 0.5) * size);
    }
    if (size < 6) return;
    context.strokeStyle = style("--text");
    context.lineWidth = 1;
    for (let r = 0; r < grid.down; r += 1) for (let c = 0; c < grid.across; c += 1) {
      context.strokeRect(c * grid.wide * size - 0.5, r * tall * size - 0.5, grid.wide * size, tall * size);
    }
  }

  // Queues: a bar as high as what waits, with the number; windows: what waits, and what is taken in this cycle.
  function drawWatched() {
    for (const each of data.watched) {
      const frame = frameOf[state.cycle];
      let before = 0, at = -1;
      for (const [start, count] of each.parts) {
        if (frame >= start && frame < start + count) at = before + frame - start;
        before += count;
      }
      const unit = each.units === 1 ? 0 : Math.min(state.unit, each.units - 1);
      const per = each.rows * each.columns;
      const size = Math.min(26, each.canvas.clientWidth / each.columns);
      const high = each.kind === "queue" ? 40 : Math.min(size, 14);
      const gap = each.together > 1 ? 5 : 0;
      const top = (row) => row * high + Math.floor(row / each.together) * gap;
      const [context] = sized(each.canvas, top(each.rows - 1) + high + 1);
      context.textAlign = "center"; context.font = "11px sans-serif";
      for (let i = 0; i < per; i += 1) {
        const level = at < 0 ? 0 : each.values[(at * each.units + unit) * per + i];
        const [x, y] = [(i % each.columns) * size, top(Math.floor(i / each.columns))];
        context.strokeStyle = style("--line");
        context.strokeRect(x + 0.5, y + 0.5, size - 2, high - 2);
        if (!level) continue;
        const fills = each.kind === "queue" || level === 1;
        context.fillStyle = fills ? style("--accent") : "#009e73";
        const share = each.kind === "queue" ? level / each.most : 1;
        const inset = each.kind === "window" && level === 1 ? 3 : 1;
        context.fillRect(x + inset, y + high - 1 - (high - 2) * share + (inset - 1), size - 2 * inset, (high - 2) * share - 2 * (inset - 1));
        if (each.kind === "queue" && size > 9) {
          context.fillStyle = style("--text");
          context.fillText(level, x + size / 2, Math.max(y + 10, y + high - 3 - (high - 2) * share));
        }
      }
    }
  }

  function drawStrip() {
    const [context, width] = sized($("strip"), 72);
    const wide = width / cycles;
    const pieces = Math.min(cycles, Math.ceil(width));
    for (let p = 0; p < pieces; p += 1) {
      const [from, to] = [Math.floor((p * cycles) / pieces), Math.floor(((p + 1) * cycles) / pieces)];
      let y = 72;
      for (let k = 0; k < kinds; k += 1) {
        const slots = until[to * kinds + k] - until[from * kinds + k];
        const high = (72 * slots) / ((to - from) * multipliers);
        context.fillStyle = causes[k].fill;
        const left = Math.floor((p * width) / pieces);
        context.fillRect(left, y - high, Math.ceil(((p + 1) * width) / pieces) - left, high);
        y -= high;
      }
    }
    context.fillStyle = style("--mark");
    context.fillRect(Math.min(width - 3, state.cycle * wide), 0, Math.max(3, wide), 72);
  }

  function showTable() {
    const t = state.cycle;
    [...$("causes").tBodies[0].rows].forEach((row, k) => {
      row.cells[2].textContent = number(counts[t * kinds + k]);
      row.cells[3].textContent = number(until[(t + 1) * kinds + k]);
    });
  }

  function noteAt(t) {
    if (waitsFor[t] >= 0) return causes[waitsFor[t]].meaning;
    let text = "";
    for (const [start, words] of data.notes) if (start <= frameOf[t]) text = words; else break;
    return text;
  }

  function show() {
    $("cycle").value = state.cycle;
    $("at").textContent = `${number(state.cycle + 1)} of ${number(cycles)}`;
    $("note").textContent = cycles ? noteAt(state.cycle) : "";
    if (!cycles) return;
    drawArray(); drawUnit(); drawWatched(); drawStrip(); showTable();
  }

  function go(cycle) {
    state.cycle = Math.max(0, Math.min(cycles - 1, cycle));
    show();
  }

  function play(on) {
    state.playing = on;
    $("play").textContent = on ? "pause" : "play";
    if (!on) return;
    if (state.cycle >= cycles - 1) go(0);
    state.before = performance.now(); state.carried = 0;
    requestAnimationFrame(tick);
  }

  function tick(time) {
    if (!state.playing) return;
    state.carried += Math.max(0, time - state.before) * Number($("speed").value) / 1000;
    state.before = time;
    const whole = Math.floor(state.carried);
    state.carried -= whole;
    if (whole) go(state.cycle + whole);
    if (state.cycle >= cycles - 1) play(false); else requestAnimationFrame(tick);
  }

  function toWork() {
    let t = state.cycle + 1;
    while (t < cycles && waitsFor[t] >= 0) t += 1;
    go(t < cycles ? t : state.cycle);
  }

  function choose(unit) {
    if (!Number.isInteger(unit)) return;
    state.unit = Math.max(0, Math.min(grid.units - 1, unit));
    $("unit").value = state.unit;
    show();
  }

  function faster(by) {
    const speed = $("speed");
    speed.selectedIndex = Math.max(0, Math.min(speed.options.length - 1, speed.selectedIndex + by));
  }

  const keys = {
    " ": () => play(!state.playing), ArrowLeft: (e) => go(state.cycle - (e.shiftKey ? 10 : 1)),
    ArrowRight: (e) => go(state.cycle + (e.shiftKey ? 10 : 1)), Home: () => go(0), End: () => go(cycles - 1),
    w: toWork, W: toWork, "+": () => faster(1), "-": () => faster(-1), "−": () => faster(-1),
  };
  document.addEventListener("keydown", (event) => {
    const target = event.target.tagName;
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    if (target === "SELECT" || target === "INPUT" || (event.key === " " && target === "BUTTON")) return;
    event.preventDefault();
    keys[event.key](event);
  });
  const clicks = { first: () => go(0), back: () => go(state.cycle - 1), step: () => go(state.cycle + 1),
    last: () => go(cycles - 1), play: () => play(!state.playing), work: toWork };
  for (const [id, done] of Object.entries(clicks)) $(id).addEventListener("click", done);
  $("cycle").addEventListener("input", (event) => go(Number(event.target.value)));
  $("unit").addEventListener("change", (event) => choose(Number(event.target.value)));
  $("strip").addEventListener("click", (event) => go(Math.floor((event.offsetX / $("strip").clientWidth) * cycles)));
  $("array").addEventListener("click", (event) => {
    const unit = Math.floor(event.offsetY / state.scale / (unitHeight + 1)) * columns + Math.floor(event.offsetX / state.scale / (unitWidth + 1));
    if (unit < grid.units) choose(unit);
  });
  $("inside").addEventListener("pointermove", (event) => {
    const size = Math.min(30, $("inside").clientWidth / unitWidth);
    const i = places.findIndex(([x, y]) => x === Math.floor(event.offsetX / size) && y === Math.floor(event.offsetY / size));
    if (i >= 0) $("slot").textContent = `slot ${i}: ${causes[codeAt(state.cycle, state.unit * perUnit + i)].words}`;
  });

  $("cycle").max = Math.max(0, cycles - 1);
  $("unit").max = grid.units - 1;
  $("unit-name").textContent = grid.name;
  $("array-name").textContent = grid.units > 1
    ? `${number(grid.units)} ${grid.name}s of ${number(perUnit)} multipliers` : `${number(multipliers)} multipliers`;
  for (const each of data.watched) {
    const title = document.createElement("h3");
    title.textContent = each.name + (each.kind === "window" ? "; small: non-zeros that wait, filled: taken in this cycle" : "");
    each.canvas = document.createElement("canvas");
    each.canvas.setAttribute("role", "img");
    each.canvas.setAttribute("aria-label", each.name);
    $("watched").append(title, each.canvas);
  }
  causes.forEach((cause, k) => {
    const row = $("causes").tBodies[0].insertRow();
    const texts = [cause.key, cause.words, "", "", number(totals[k]), number(data.counted[k])];
    texts.forEach((text, i) => {
      const cell = row.insertCell();
      if (i > 1) cell.className = "n";
      if (i !== 0) { cell.textContent = text; return; }
      const key = document.createElement("span");
      key.className = "key"; key.textContent = text;
      key.style.background = cause.fill;
      key.style.color = inkOn(rgb[k]);
      cell.append(key);
    });
    const meaning = document.createElement("small");
    meaning.textContent = cause.meaning;
    row.cells[1].append(meaning);
  });
  $("equal").textContent = isEqual
    ? "What the cycles add up to is what simulate counts, cause by cause."
    : "What the cycles add up to is not what simulate counts: please report it.";
  root.dataset.equal = isEqual ? "yes" : "no";
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(show, 100); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  if (cycles && waitsFor[0] >= 0) toWork(); else show();
  root.dataset.ready = "yes";
})();

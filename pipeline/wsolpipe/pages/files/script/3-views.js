// ---- The list: only lines in sight are in the document.
const HIGH = 30;
const pane = document.querySelector(".pane");
const columns = gallery ? [
  ["row", (i) => table.row[i]], ["image", (i) => table.id[i]], ["class", (i) => classText(i)], ["status", (i) => stateOf(i) || table.status[i]],
  ...table.figures.map(([name, title, scale]) => [title, (i) => (table[name][i] === null ? "–" : (scale * table[name][i]).toFixed(scale === 1 ? 3 : 1))]),
] : [];
const viewNow = () => (gallery.querySelector("[name=view]:checked") || { id: "view-cards" }).id.slice("view-".length);
const linkOf = (i) => (cards[i] || !table.page ? `#${address(i)}` : `${table.folder}/${String(table.page[i]).padStart(4, "0")}.html#${address(i)}`);

function paint() {
  const view = viewNow();
  for (const part of gallery.querySelectorAll(".view")) part.hidden = !part.classList.contains(`view-${view}`);
  gallery.querySelector(".pager").hidden = view !== "cards";
  if (view === "list") paintList();
  if (view === "scatter") paintScatter();
  if (view === "classes") paintClasses();
}

function paintList() {
  const first = Math.max(0, Math.floor(pane.scrollTop / HIGH) - 5), last = Math.min(found.length, first + Math.ceil(pane.clientHeight / HIGH) + 10);
  const focused = document.activeElement.closest && document.activeElement.closest(".lines a");
  const had = focused ? focused.dataset.i : null;
  pane.querySelector(".space").style.height = `${found.length * HIGH}px`;
  pane.querySelector(".lines").style.transform = `translateY(${first * HIGH}px)`;
  const head = document.querySelector(".columns");
  if (!head.children.length) head.replaceChildren(...["", ...columns.map(([title]) => title)].map((title) => Object.assign(document.createElement("span"), { textContent: title })));
  document.querySelector(".view-list").style.setProperty("--figures", table.figures.length);
  pane.querySelector(".lines").replaceChildren(...found.slice(first, last).map((i) => {
    const line = Object.assign(document.createElement("div"), { className: `one${marks.get("").has(i) ? " is-chosen" : ""}` });
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: marks.get("").has(i) });
    box.setAttribute("aria-label", `choose row ${table.row[i]}`);
    box.addEventListener("click", (event) => chooseOne(i, box.checked, event.shiftKey));
    const link = Object.assign(document.createElement("a"), { href: linkOf(i) });
    link.dataset.i = i;
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      openLarge(i);
    });
    for (const [, tell] of columns) link.append(Object.assign(document.createElement("span"), { textContent: tell(i), title: tell(i) }));
    line.append(box, link);
    return line;
  }));
  if (had !== null && pane.querySelector(`[data-i="${had}"]`)) pane.querySelector(`[data-i="${had}"]`).focus({ preventScroll: true });
}

// ---- The scatter of two figures, with a lasso.
const scatter = { canvas: document.querySelector("canvas.scatter"), line: [], points: null };
const spans = {};
function spanOf(name) {
  if (spans[name]) return spans[name];
  let low = Infinity, high = -Infinity;
  for (const each of table[name]) if (each !== null) [low, high] = [Math.min(low, each), Math.max(high, each)];
  return (spans[name] = low < high ? [low, high] : [low - 0.5, low + 0.5]);
}

// Round numbers between two values, as a figure is shown.
function ticks(low, high, scale) {
  const rough = (scale * (high - low)) / 5, ten = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find((each) => each * ten >= rough) * ten;
  const shown = [];
  for (let at = Math.ceil((scale * low) / step) * step; at <= scale * high + 1e-9; at += step) shown.push(Number(at.toPrecision(6)));
  return shown;
}

function paintScatter() {
  if (!table.figures.length) return;
  const { canvas } = scatter, [x, y] = [value("scatter-x"), value("scatter-y")], pen = canvas.getContext("2d", { willReadFrequently: true });
  const style = getComputedStyle(document.documentElement), ink = (name) => style.getPropertyValue(`--${name}`).trim();
  const [wide, high, edge] = [canvas.width, canvas.height, 56];
  const [[x0, x1], [y0, y1]] = [spanOf(x), spanOf(y)];
  const across = (v) => edge + ((v - x0) / (x1 - x0)) * (wide - 1.5 * edge), up = (v) => high - edge - ((v - y0) / (y1 - y0)) * (high - 1.5 * edge);
  pen.clearRect(0, 0, wide, high);
  pen.font = "15px system-ui,sans-serif";
  pen.fillStyle = ink("soft");
  pen.strokeStyle = ink("rule");
  const named = Object.fromEntries(table.figures.map(([name, title, scale]) => [name, [title, scale]]));
  pen.textAlign = "center";
  for (const tick of ticks(x0, x1, named[x][1])) pen.fillText(tick, across(tick / named[x][1]), high - edge + 26);
  pen.fillText(named[x][0], (wide + edge) / 2, high - 8);
  pen.textAlign = "right";
  for (const tick of ticks(y0, y1, named[y][1])) {
    pen.fillText(tick, edge - 14, up(tick / named[y][1]) + 5);
    pen.strokeRect(edge - 6, up(tick / named[y][1]), wide - 1.5 * edge, 0);
  }
  pen.textAlign = "left";
  pen.fillText(named[y][0], 8, 18);
  const chosen = marks.get(""), points = { i: [], x: [], y: [] };
  const size = found.length > 5000 ? 2 : found.length > 500 ? 4 : 8, [xs, ys] = [table[x], table[y]];
  const picture = pen.getImageData(0, 0, wide, high), pixels = new Uint32Array(picture.data.buffer);
  const colourOf = (name) => { // as the picture's bytes hold it
    pen.fillStyle = ink(name);
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(pen.fillStyle.slice(at, at + 2), 16));
    return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  };
  for (const over of [false, true]) { // what is chosen lies above
    const colour = colourOf(over ? "top1" : "otsu");
    for (const i of found) {
      if (xs[i] === null || ys[i] === null || chosen.has(i) !== over) continue;
      const px = across(xs[i]), py = up(ys[i]), left = Math.max(0, Math.round(px - size / 2)), top = Math.max(0, Math.round(py - size / 2));
      for (let row = top; row < Math.min(high, top + size); row++) pixels.fill(colour, row * wide + left, row * wide + Math.min(wide, left + size));
      points.i.push(i), points.x.push(px), points.y.push(py);
    }
  }
  pen.putImageData(picture, 0, 0);
  scatter.points = points;
  if (scatter.line.length > 1) {
    pen.strokeStyle = ink("cut");
    pen.lineWidth = 3;
    pen.beginPath();
    for (const [px, py] of scatter.line) pen.lineTo(px, py);
    pen.closePath();
    pen.stroke();
  }
}

function inside(px, py, line) {
  let odd = false;
  for (let a = 0, b = line.length - 1; a < line.length; b = a++) {
    const [[ax, ay], [bx, by]] = [line[a], line[b]];
    if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

function lasso(line, add) {
  const { points } = scatter, rows = points.i.filter((_, at) => inside(points.x[at], points.y[at], line));
  perform(((before) => [
    () => { if (!add) putMark("", [...before], false); putMark("", rows, true); },
    () => { putMark("", rows, false); putMark("", [...before], true); },
  ])(new Set(marks.get(""))));
}

function startScatter() {
  const { canvas } = scatter;
  const at = (event) => {
    const rect = canvas.getBoundingClientRect();
    return [((event.clientX - rect.left) * canvas.width) / rect.width, ((event.clientY - rect.top) * canvas.height) / rect.height];
  };
  for (const [id, place] of [["scatter-x", 0], ["scatter-y", 1]]) {
    $(id).replaceChildren(...table.figures.map(([name, title], number) => new Option(title, name, number === Math.min(place, table.figures.length - 1), number === Math.min(place, table.figures.length - 1))));
    $(id).addEventListener("change", () => { paintScatter(); remember(); });
  }
  if (!table.figures.length) $("view-scatter").closest("label").hidden = true;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    scatter.line = [at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!scatter.line.length) return;
    scatter.line.push(at(event));
    const pen = canvas.getContext("2d"), [a, b] = scatter.line.slice(-2);
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--cut");
    pen.lineWidth = 3;
    pen.beginPath();
    pen.moveTo(...a);
    pen.lineTo(...b);
    pen.stroke();
  });
  canvas.addEventListener("pointerup", (event) => {
    const line = scatter.line, [px, py] = at(event);
    scatter.line = [];
    if (line.length > 8) return lasso(line, event.shiftKey);
    const { points } = scatter;
    let best = -1, near = 30 ** 2;
    points.x.forEach((x, n) => {
      const apart = (x - px) ** 2 + (points.y[n] - py) ** 2;
      if (apart < near) [best, near] = [n, apart];
    });
    if (best >= 0) openLarge(points.i[best]);
    else paintScatter();
  });
}

// ---- Confusion: rows of each pair of the label and the class that a stage found likeliest.
function paintClasses() {
  const counts = new Map(), labels = new Set();
  for (const i of found) {
    if (table.predicted[i] === null || !table.classes[i].length) continue;
    const [own, guess] = [table.classes[i][0], table.predicted[i]];
    counts.set(`${own} ${guess}`, [...(counts.get(`${own} ${guess}`) || []), i]);
    labels.add(own).add(guess);
  }
  const wrong = (label) => [...counts].reduce((sum, [pair, rows]) => sum + (pair.split(" ").includes(String(label)) && new Set(pair.split(" ")).size > 1 ? rows.length : 0), 0);
  const shown = [...labels].sort((a, b) => wrong(b) - wrong(a)).slice(0, 30).sort((a, b) => a - b);
  const cell = (kind, text) => Object.assign(document.createElement(kind), { textContent: text });
  const grid = Object.assign(document.createElement("table"), { className: "plain confusion" });
  const head = document.createElement("tr");
  head.append(cell("th", "label \\ likeliest"), ...shown.map((label) => Object.assign(cell("th", className(label)), { scope: "col" })));
  grid.append(head, ...shown.map((own) => {
    const line = document.createElement("tr");
    line.append(Object.assign(cell("th", className(own)), { scope: "row" }), ...shown.map((guess) => {
      const rows = counts.get(`${own} ${guess}`) || [], box = cell("td", "");
      if (!rows.length) return box;
      const button = Object.assign(cell("button", rows.length), { type: "button", title: `choose the rows of ${className(own)} taken for ${className(guess)}` });
      button.addEventListener("click", () => mark("", rows, true));
      box.className = own === guess ? "right" : "wrong";
      box.append(button);
      return box;
    }));
    return line;
  }));
  const place = Object.assign(document.createElement("div"), { className: "scroll", tabIndex: 0 });
  place.append(grid);
  document.querySelector(".view-classes").replaceChildren(Object.assign(cell("p", `Rows by label and by the likeliest class of ${table.predicted_by}; a cell chooses its rows.${labels.size > shown.length ? ` The ${shown.length} classes that are most often confused of ${labels.size}.` : ""}`), { className: "hint" }), place);
}

let lastChosen = -1;
function chooseOne(i, on, range) {
  const [a, b] = [found.indexOf(lastChosen), found.indexOf(i)];
  mark("", range && a >= 0 && b >= 0 ? found.slice(Math.min(a, b), Math.max(a, b) + 1) : [i], on);
  lastChosen = i;
}

// Sorts, filters and cuts what the page already shows, keeps marks and corrections. Without it every switch and link
// works by itself. The parts of this script lie in the folder `script` and are put together in the order of their names.
const $ = (id) => document.getElementById(id);
const numeric = (text) => (text === "" || text === undefined || text === null ? NaN : Number(text));
const value = (id) => ($(id) ? ($(id).type === "checkbox" ? $(id).checked : $(id).value) : "");
const gallery = document.querySelector(".gallery");
const framed = window.parent !== window;

// ---- The view is kept in the address, so that a link or a reload brings it back: every control that is not as the page
// opens it, as "at" the part of the page that a link led to, and as "large" the row of the large view.
const controls = [...document.querySelectorAll("form.browse,form.cutting,form.layers,.view-scatter form")].flatMap((form) => [...form.elements]).filter((part) => part.id && part.matches("input,select"));
const ticked = (part) => part.type === "checkbox" || part.type === "radio";
const initial = (part) => (ticked(part) ? part.defaultChecked : part.tagName === "SELECT"
  ? ([...part.options].find((option) => option.defaultSelected) || part.options[0] || { value: "" }).value : part.defaultValue);
const now = (part) => (ticked(part) ? part.checked : part.value);
const state = { place: "", page: 0, large: "" };

function remember() {
  const kept = new URLSearchParams();
  for (const part of controls) {
    if (now(part) === initial(part)) continue;
    if (part.type !== "radio") kept.set(part.id, now(part));
    else if (part.checked) kept.set(part.name, part.id);
  }
  if (state.page) kept.set("page", state.page + 1);
  if (state.large) kept.set("large", state.large);
  const view = kept.toString();
  if (state.place && view) kept.set("at", state.place);
  history.replaceState(null, "", `#${view ? kept : state.place}`);
}

function recall() {
  const text = location.hash.slice(1), given = new URLSearchParams(text.includes("=") ? text : "");
  state.place = text.includes("=") ? given.get("at") || "" : new URLSearchParams(`at=${text}`).get("at");
  state.page = Math.max(0, (Number(given.get("page")) || 1) - 1);
  state.large = given.get("large") || "";
  for (const part of controls) {
    const kept = part.type === "radio" ? given.has(part.name) && String(given.get(part.name) === part.id) : given.get(part.id);
    if (ticked(part)) part.checked = kept ? kept === "true" : initial(part);
    else part.value = kept === null ? initial(part) : kept;
    if (part.selectedIndex === -1) part.value = initial(part); // an address of another page
  }
}

function go() {
  if (state.place && $(state.place)) $(state.place).scrollIntoView();
}

// ---- The rows: one column a fact; `cards` holds the card of a row where this page has it.
const table = gallery ? JSON.parse($("rows-table").textContent) : { row: [], figures: [] };
const total = table.row.length;
for (const column of Object.values(table)) if (column.of) column.all = column.at.map((at) => column.of[at]);
for (const name of Object.keys(table)) if (table[name].all) table[name] = table[name].all;
const address = (i) => `${table.part[i]}r${table.row[i]}`;
const placed = new Map(table.row.map((_, i) => [address(i), i]));
const cards = new Array(total).fill(null);
for (const card of document.querySelectorAll(".cards > .card")) cards[placed.get(card.id)] = card;
const here = cards.map((card, i) => (card ? i : -1)).filter((i) => i >= 0);
const holder = document.querySelector(".cards");
const className = (label) => table.names[label] || `class ${label}`;
const classText = (i) => table.classes[i].map(className).join(", ");
const cuts = gallery ? JSON.parse($("cuts").textContent) : {};
const cutIou = new Array(total).fill(null);
const orders = {}; // of all rows, by figure and direction, made when it is first asked for
let texts = null, found = here.slice();

const searched = () => (texts ||= table.row.map((row, i) =>
  `${table.id[i]} ${table.classes[i].map((label) => `${table.names[label] || `class ${label}`} ${label}`).join(" ")} ${table.status[i]} ${table.stage[i]} ${table.reason[i]} row ${row}`.toLowerCase()));

function select() {
  const words = value("words").toLowerCase().split(/\s+/).filter(Boolean), text = words.length ? searched() : [];
  const [low, high, least] = ["iou-from", "iou-to", "score-from"].map((id) => numeric(value(id)));
  const [label, status, stage, marked] = ["class", "status", "stage", "marked"].map(value);
  const group = gallery.querySelector("[name=group]:checked"), name = group ? group.id.slice("group-".length) : "all";
  found = [];
  for (let i = 0; i < total; i++) {
    if (name !== "all" && table.group[i] !== name) continue;
    if (status && table.status[i] !== status) continue;
    if (stage && table.stage[i] !== stage) continue;
    if (label && !table.classes[i].some((each) => className(each) === label)) continue;
    if (low === low && !(100 * numeric(table.iou && table.iou[i]) >= low)) continue;
    if (high === high && !(100 * numeric(table.iou && table.iou[i]) <= high)) continue;
    if (least === least && !(numeric(table.score && table.score[i]) >= least)) continue;
    if (marked && !isMarked(i, marked)) continue;
    if (words.length && !words.every((word) => text[i].includes(word))) continue;
    found.push(i);
  }
  sort();
}

function sort() {
  const by = value("sort"), sign = value("down") ? -1 : 1;
  if (!by) return;
  const key = by === "row" ? table.row : by === "class" ? found.reduce((keys, i) => ((keys[i] = classText(i)), keys), []) : by === "cut" ? cutIou : table[by];
  if (!key) return;
  const compare = (a, b) => {
    const [x, y] = [key[a], key[b]];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
  };
  if (key !== table[by]) return found.sort(compare);
  const all = (orders[`${by} ${sign}`] ||= table.row.map((_, i) => i).sort(compare)), wanted = new Uint8Array(total);
  for (const i of found) wanted[i] = 1;
  found = all.filter((i) => wanted[i]);
}

// ---- Cards: those that are found, a page of them at a time.
let order = "";
function show() {
  const shown = found.filter((i) => cards[i]), per = Number(value("per")) || shown.length || 1;
  state.page = Math.min(state.page, Math.max(0, Math.ceil(shown.length / per) - 1));
  const first = state.page * per, last = Math.min(shown.length, first + per), keep = new Set(shown), seen = new Set(shown.slice(first, last));
  for (const i of here) {
    cards[i].hidden = !keep.has(i);
    cards[i].classList.toggle("off", !seen.has(i));
  }
  const wanted = value("sort") ? shown.join() : "";
  if (wanted !== order) holder.append(...[...(wanted ? shown : []), ...here.filter((i) => !wanted || !keep.has(i))].map((i) => cards[i]));
  order = wanted;
  $("found").value = `${found.length} of ${total} rows`;
  $("pager-shown").value = shown.length ? `${first + 1}–${last}${shown.length > last - first ? ` of ${shown.length}` : ""}` : "";
  $("pager-back").disabled = state.page === 0;
  $("pager-on").disabled = last >= shown.length;
  gallery.querySelector(".empty-result").hidden = found.length > 0;
  tally();
}

function tally() {
  if (!$("cut-figures")) return;
  const ious = found.map((i) => cutIou[i]).filter((iou) => iou !== null);
  const share = (level) => ((100 * ious.filter((iou) => iou >= level).length) / ious.length).toFixed(1);
  const mean = (100 * ious.reduce((sum, iou) => sum + iou, 0)) / ious.length;
  $("cut-figures").value = ious.length ? `of these ${ious.length} rows: MaxBoxAcc ${share(0.5)}, mean IoU ${mean.toFixed(1)}` : "";
}

function turn(by) {
  state.page = Math.max(0, state.page + by);
  show();
  remember();
  gallery.scrollIntoView();
}

// ---- Boxes of a map at a threshold: the last run that begins at or before it.
function cutOf(i, slot, level) {
  const stored = cuts[address(i)] && cuts[address(i)][slot];
  if (!stored) return null;
  const bytes = atob(stored);
  let at = 0;
  for (let next = 6; next < bytes.length; next += 6) {
    if (bytes.charCodeAt(next) + 256 * bytes.charCodeAt(next + 1) > level) break;
    at = next;
  }
  return [2, 3, 4, 5].map((side) => bytes.charCodeAt(at + side));
}

// IoU as the standard evaluator: truth truncated to whole pixels of the frame, far edges at most 223, both edges counted.
function standardIou(box, i) {
  if (!table.truth[i].length) return null;
  const side = 224, clipped = [box[0], box[1], Math.min(box[2], side - 1), Math.min(box[3], side - 1)];
  const area = (b) => (b[2] - b[0] + 1) * (b[3] - b[1] + 1);
  let best = 0;
  for (const truth of table.truth[i]) {
    const own = truth.map((edge, at) => Math.trunc((edge * side) / table.pixels[i][at % 2]));
    const wide = Math.max(0, Math.min(own[2], clipped[2]) - Math.max(own[0], clipped[0]) + 1);
    const high = Math.max(0, Math.min(own[3], clipped[3]) - Math.max(own[1], clipped[1]) + 1);
    best = Math.max(best, (wide * high) / (area(own) + area(clipped) - wide * high));
  }
  return best;
}

function rectangle(style, x0, y0, x1, y1) {
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("class", style);
  for (const [edge, at] of [["x", x0], ["y", y0], ["width", x1 - x0], ["height", y1 - y0]]) rect.setAttribute(edge, at.toFixed(1));
  return rect;
}

function cutCard(card, i, level, slot) {
  const box = cutOf(i, slot, level), [w, h] = table.pixels[i].map((side) => side / 224), group = card.querySelector(".scene .cut");
  let told = "";
  if (group) group.textContent = "";
  cutIou[i] = null;
  if (box) {
    card.dataset.box = box.join(",");
    if (group) group.append(...["halo", "line"].map((style) => rectangle(style, box[0] * w, box[1] * h, box[2] * w, box[3] * h)));
    cutIou[i] = standardIou(box, i);
    if (cutIou[i] !== null) told = `cut at ${(level / 1000).toFixed(3)}: IoU ${(100 * cutIou[i]).toFixed(1)}`;
  }
  card.dataset.cut = cutIou[i] === null ? "" : cutIou[i];
  if (card.querySelector(".cut-iou")) card.querySelector(".cut-iou").textContent = told;
}

function redraw() {
  if (!$("tau")) return;
  const level = Number($("tau").value), slot = $("cut-slot").value;
  $("tau-shown").value = (level / 1000).toFixed(3);
  for (const i of here) cutCard(cards[i], i, level, slot);
  if (large.open) cutCard(large.card, large.i, level, slot);
  tally();
}

// ---- The large view of a row: its card, drawn large, with zoom and the tools to correct it. Rows of other pages are
// shown by those pages in a frame, which asks this page for the next one.
const large = { open: false, i: -1, card: null, dialog: null, view: null, tool: false, at: -1, drag: null };

function openLarge(i) {
  if (!(i >= 0)) return;
  large.i = i;
  state.large = address(i);
  if (!large.dialog) buildLarge();
  if (cards[i]) fillLarge(i);
  else {
    const frame = large.dialog.querySelector("iframe"), [file, hash] = linkOf(i).split("#");
    large.dialog.querySelector(".large-own").hidden = true;
    frame.hidden = false;
    frame.title = `row ${table.row[i]}`;
    frame.src = `${file}#large=${hash}`;
  }
  if (!large.open) (framed ? large.dialog.show() : large.dialog.showModal());
  large.open = true;
  if (framed) {
    window.focus();
    window.parent.postMessage({ wsolpipe: "shown", row: address(i) }, "*");
  }
  large.paint();
  remember();
}

function closeLarge() {
  if (!large.open) return;
  large.open = false;
  if (framed) return window.parent.postMessage({ wsolpipe: "close" }, "*");
  large.dialog.close();
  state.large = "";
  remember();
  const card = cards[large.i];
  if (card) {
    showCardOf(large.i);
    card.focus();
  }
}

// The page of cards on which a row is.
function showCardOf(i) {
  const shown = found.filter((each) => cards[each]), per = Number(value("per")) || shown.length || 1, at = shown.indexOf(i);
  if (at < 0) return;
  const page = Math.floor(at / per);
  if (page !== state.page) {
    state.page = page;
    show();
  }
}

function stepLarge(by) {
  if (framed) return window.parent.postMessage({ wsolpipe: "step", by }, "*");
  const at = found.indexOf(large.i), next = found[Math.min(Math.max(at + by, 0), found.length - 1)];
  if (next !== undefined && next !== large.i) openLarge(next);
}

function buildLarge() {
  const dialog = Object.assign(document.createElement("dialog"), { className: "large" });
  const tools = [["large-back", "‹ previous"], ["large-on", "next ›"], ["large-choose", "choose"], ["zoom-in", "+"], ["zoom-out", "−"], ["zoom-fit", "whole image"], ["large-close", "close"]];
  const correct = [["accept", "its box is right"], ["new-box", "new box"], ["delete-box", "delete box"], ["no-object", "no object"], ["unclear", "unclear"], ["forget", "forget"]];
  const button = ([id, text]) => `<button type="button" id="${id}">${text}</button>`;
  // Nothing of the data set is in this text; names come in as text below.
  dialog.innerHTML = `<div class="large-own"><form class="tools" method="dialog" aria-label="Large view">${tools.map(button).join("")}<span class="line"><button type="button" id="correct" aria-pressed="false">correct</button>${correct.map(button).join("")}<label>class <select id="box-class"></select></label><output id="large-state" aria-live="polite"></output></span></form><div class="large-card"></div></div><iframe hidden></iframe>`;
  dialog.setAttribute("aria-label", "Row in large");
  gallery.append(dialog);
  large.dialog = dialog;
  const acts = {
    "large-back": () => stepLarge(-1), "large-on": () => stepLarge(1), "large-close": closeLarge, "zoom-in": () => zoom(1 / 1.4), "zoom-out": () => zoom(1.4),
    "zoom-fit": fit, correct: toggleTool, accept, "new-box": newBox, "delete-box": deleteBox, "no-object": () => edit(large.i, { boxes: [] }),
    unclear: () => edit(large.i, { boxes: [], unclear: true }), forget: () => edit(large.i, null), "large-choose": () => mark("", [large.i], !marks.get("").has(large.i)),
  };
  for (const [id, act] of Object.entries(acts)) $(id).addEventListener("click", act);
  const labels = Object.keys(table.names).map(Number).sort((a, b) => a - b);
  $("box-class").append(new Option("none", ""), ...labels.map((label) => new Option(`${table.names[label]} (${label})`, label)));
  $("box-class").addEventListener("change", () => setClass($("box-class").value));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    escape();
  });
  large.paint = paintLarge;
}

function fillLarge(i) {
  const card = cards[i].cloneNode(true), own = large.dialog.querySelector(".large-own");
  own.hidden = false;
  large.dialog.querySelector("iframe").hidden = true;
  card.classList.remove("off");
  card.hidden = false;
  for (const part of [card, ...card.querySelectorAll("[id]")]) part.removeAttribute("id");
  card.querySelector("defs").remove(); // what the page's own card defines is used
  card.removeAttribute("tabindex");
  for (const pick of card.querySelectorAll(".maps input")) pick.name = "large";
  card.querySelector(".chosen").addEventListener("click", (event) => mark("", [i], event.target.checked));
  const before = large.dialog.querySelector(".large-card .maps input:checked");
  if (before && card.querySelector(`.${before.className}`)) card.querySelector(`.${before.className}`).checked = true; // the same map as of the row before
  large.dialog.querySelector(".large-card").replaceChildren(card);
  Object.assign(large, { card, at: -1, drag: null });
  const scene = card.querySelector(".scene");
  fit();
  scene.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, pointOf(event));
  }, { passive: false });
  scene.addEventListener("pointerdown", startDrag);
  scene.addEventListener("pointermove", moveDrag);
  scene.addEventListener("pointerup", endDrag);
  scene.addEventListener("pointercancel", () => { large.drag = null; paintLarge(); });
}

// ---- Zoom: the part of the image that the scene shows, as x, y, width, height.
function setView(view) {
  large.view = view;
  large.card.querySelector(".scene").setAttribute("viewBox", view.map((edge) => edge.toFixed(2)).join(" "));
  paintLarge();
}
function fit() {
  const [w, h] = table.pixels[large.i], unit = Math.max(w, h) / 100;
  setView([-unit, -unit, w + 2 * unit, h + 2 * unit]);
}
function zoom(by, about) {
  const [x, y, w, h] = large.view, [px, py] = about || [x + w / 2, y + h / 2], most = 1.5 * Math.max(...table.pixels[large.i]);
  if (w * by < 8 || w * by > most) return;
  setView([px - (px - x) * by, py - (py - y) * by, w * by, h * by]);
}
function pointOf(event) {
  const scene = large.card.querySelector(".scene"), at = new DOMPoint(event.clientX, event.clientY).matrixTransform(scene.getScreenCTM().inverse());
  return [at.x, at.y];
}
const pixel = () => 1 / large.card.querySelector(".scene").getScreenCTM().a; // of the screen, in those of the image

// ---- Correcting: boxes of a row as somebody draws them; nothing is drawn for a row that nobody touched.
const boxesNow = () => (edits.has(large.i) ? edits.get(large.i).boxes : []).map((box) => [...box]);
const firstLabel = () => table.classes[large.i][0];
const MINIMUM = 2;

function toggleTool() {
  large.tool = !large.tool;
  large.at = -1;
  paintLarge();
}
function fitted(box) {
  const [w, h] = table.pixels[large.i], clip = (v, most) => Math.min(Math.max(Math.round(v * 10) / 10, 0), most);
  const [x0, x1] = [box[0], box[2]].sort((a, b) => a - b), [y0, y1] = [box[1], box[3]].sort((a, b) => a - b);
  return [clip(x0, w), clip(y0, h), clip(x1, w), clip(y1, h), ...box.slice(4)];
}
const largeEnough = (box) => box[2] - box[0] >= MINIMUM && box[3] - box[1] >= MINIMUM;
function put(boxes, at) {
  edit(large.i, { boxes });
  large.at = at;
  paintLarge();
}
function accept() {
  const box = large.card.querySelector(".scene .top .line");
  if (!box) return;
  const [x, y, w, h] = ["x", "y", "width", "height"].map((edge) => Number(box.getAttribute(edge)));
  large.tool = true;
  put([fitted([x, y, x + w, y + h, ...(firstLabel() === undefined ? [] : [firstLabel()])])], 0);
}
function newBox() {
  const [w, h] = table.pixels[large.i], boxes = boxesNow();
  large.tool = true;
  put([...boxes, fitted([w / 4, h / 4, (3 * w) / 4, (3 * h) / 4, ...(firstLabel() === undefined ? [] : [firstLabel()])])], boxes.length);
}
function deleteBox() {
  const boxes = boxesNow();
  if (large.at < 0 || !boxes[large.at]) return;
  boxes.splice(large.at, 1);
  if (boxes.length) put(boxes, Math.min(large.at, boxes.length - 1));
  else {
    edit(large.i, null); // a row whose last box is taken back is as before; "no object" says that it has none
    large.at = -1;
    paintLarge();
  }
}
function nextBox() {
  const count = boxesNow().length;
  if (count) large.at = (large.at + 1) % count;
  paintLarge();
}
function nudge(x, y, corner) {
  const boxes = boxesNow(), box = boxes[large.at], [w, h] = table.pixels[large.i];
  if (!box) return false;
  const next = corner ? fitted([box[0], box[1], Math.max(box[2] + x, box[0] + MINIMUM), Math.max(box[3] + y, box[1] + MINIMUM), ...box.slice(4)])
    : [box[0] + Math.max(-box[0], Math.min(x, w - box[2])), box[1] + Math.max(-box[1], Math.min(y, h - box[3])), box[2] + Math.max(-box[0], Math.min(x, w - box[2])), box[3] + Math.max(-box[1], Math.min(y, h - box[3])), ...box.slice(4)];
  boxes[large.at] = next;
  put(boxes, large.at);
  return true;
}
function setClass(text) {
  const boxes = boxesNow(), label = text === "" ? [] : [Number(text)];
  if (!boxes.length) return;
  put(boxes.map((box, at) => (large.at < 0 || at === large.at ? [...box.slice(0, 4), ...label] : box)), large.at);
}

// The corner of the selected box under a point, a box under it, or nothing.
function grab(point) {
  const boxes = boxesNow(), near = 9 * pixel(), [px, py] = point;
  const own = boxes[large.at];
  if (own) {
    const sides = [Math.abs(px - own[0]) < near ? 0 : Math.abs(px - own[2]) < near ? 2 : -1, Math.abs(py - own[1]) < near ? 1 : Math.abs(py - own[3]) < near ? 3 : -1];
    const within = px > own[0] - near && px < own[2] + near && py > own[1] - near && py < own[3] + near;
    if (within && (sides[0] >= 0 || sides[1] >= 0)) return { at: large.at, sides };
  }
  const under = boxes.map((box, at) => at).filter((at) => px >= boxes[at][0] && px <= boxes[at][2] && py >= boxes[at][1] && py <= boxes[at][3]);
  const area = (at) => (boxes[at][2] - boxes[at][0]) * (boxes[at][3] - boxes[at][1]);
  return under.length ? { at: under.sort((a, b) => area(a) - area(b))[0], sides: null } : null;
}
function startDrag(event) {
  if (event.button > 1) return;
  event.preventDefault();
  event.currentTarget.setPointerCapture(event.pointerId);
  const from = pointOf(event);
  if (!large.tool || event.button === 1) {
    large.drag = { pan: true, from };
    return;
  }
  const grabbed = grab(from), boxes = boxesNow();
  if (grabbed) large.drag = { from, at: grabbed.at, sides: grabbed.sides, before: boxes[grabbed.at], boxes };
  else large.drag = { from, at: boxes.length, fresh: true, boxes: [...boxes, [...from, ...from, ...(firstLabel() === undefined ? [] : [firstLabel()])]] };
  large.at = large.drag.at;
  paintLarge();
}
function moveDrag(event) {
  const { drag } = large;
  if (!drag) return;
  const [px, py] = pointOf(event), [dx, dy] = [px - drag.from[0], py - drag.from[1]];
  if (drag.pan) return setView([large.view[0] - dx, large.view[1] - dy, large.view[2], large.view[3]]);
  const box = [...(drag.fresh ? drag.boxes[drag.at] : drag.before)];
  if (drag.fresh) [box[2], box[3]] = [px, py];
  else if (drag.sides) for (const side of drag.sides) { if (side >= 0) box[side] += side % 2 ? dy : dx; }
  else {
    const [w, h] = table.pixels[large.i], mx = Math.max(-box[0], Math.min(dx, w - box[2])), my = Math.max(-box[1], Math.min(dy, h - box[3]));
    [box[0], box[1], box[2], box[3]] = [box[0] + mx, box[1] + my, box[2] + mx, box[3] + my];
  }
  drag.boxes[drag.at] = box;
  drag.moved = true;
  paintLarge();
}
function endDrag() {
  const { drag } = large;
  large.drag = null;
  if (!drag || drag.pan) return;
  if (!drag.moved) return paintLarge();
  const box = fitted(drag.boxes[drag.at]);
  if (!largeEnough(box)) {
    large.at = -1;
    return paintLarge();
  }
  drag.boxes[drag.at] = box;
  put(drag.boxes, drag.at);
}

function paintLarge() {
  if (!large.open || !large.card || large.dialog.querySelector(".large-own").hidden) return;
  const { card, i } = large, boxes = large.drag && large.drag.boxes ? large.drag.boxes : boxesNow(), group = card.querySelector(".scene .human");
  paintMarks(card, i);
  group.textContent = "";
  boxes.forEach((box, at) => {
    const sides = fitted(box).slice(0, 4);
    group.append(...["halo", at === large.at ? "line selected" : "line"].map((style) => rectangle(style, ...sides)));
    const unit = 4 * pixel();
    if (large.tool && at === large.at) for (const x of [sides[0], sides[2]]) for (const y of [sides[1], sides[3]]) group.append(rectangle("handle", x - unit, y - unit, x + unit, y + unit));
  });
  card.classList.toggle("correcting", large.tool);
  $("correct").setAttribute("aria-pressed", large.tool);
  $("large-choose").textContent = marks.get("").has(i) ? "chosen ✓" : "choose";
  $("accept").disabled = !card.querySelector(".scene .top .line");
  $("delete-box").disabled = large.at < 0 || !boxes[large.at];
  $("forget").disabled = !edits.has(i);
  const label = boxes[large.at] ? boxes[large.at][4] : (boxes[0] || [])[4];
  $("box-class").disabled = !boxes.length;
  $("box-class").value = label === undefined || label === null ? "" : label;
  const place = found.indexOf(i);
  $("large-state").value = `${place >= 0 && !framed ? `${place + 1} of ${found.length}, ` : ""}row ${table.row[i]}${stateOf(i) ? `: ${stateOf(i)}${boxes.length > 1 ? `, ${boxes.length} boxes` : ""}` : ""}`;
}
large.paint = paintLarge;

function escape() {
  if (large.at >= 0) large.at = -1;
  else if (large.tool) large.tool = false;
  else return closeLarge();
  paintLarge();
}

// ---- Keys, and what a change of a control leads to.

function update(event) {
  const id = event && event.target ? event.target.id : "";
  if (id === "tau" || id === "cut-slot") redraw();
  if (!event || event.type !== "input" || event.target.closest(".browse") || event.target.name === "group") state.page = 0;
  select();
  show();
  paint();
  remember();
}
function restore() {
  redraw();
  select();
  show();
  paint();
  if (placed.has(state.place)) showCardOf(placed.get(state.place));
  if (state.large && placed.has(state.large)) openLarge(placed.get(state.large));
  else if (large.open && !framed) closeLarge();
}

function stepCard(by) {
  const shown = [...holder.children].filter((card) => !card.hidden && card.offsetParent !== null), at = shown.indexOf(document.activeElement.closest(".card"));
  if (at + by >= shown.length && !$("pager-on").disabled) {
    turn(1);
    return stepCard(1);
  }
  const next = shown[Math.min(Math.max(at + by, 0), shown.length - 1)];
  if (next) next.focus();
}
const focused = () => (large.open ? large.i : placed.get((document.activeElement.closest(".card") || {}).id) ?? Number((document.activeElement.dataset || {}).i ?? NaN));
function nextMap() {
  const card = large.open ? large.card : document.activeElement.closest(".card"), picks = card ? [...card.querySelectorAll(".maps input")] : [];
  if (picks.length) picks[(picks.findIndex((pick) => pick.checked) + 1) % picks.length].checked = true;
}
function slide(by) {
  if (!$("tau")) return;
  $("tau").value = Number($("tau").value) + by;
  redraw();
  remember();
}
let laid = "";
function flipMap() {
  if (!$("heat")) return;
  laid = value("heat") || laid;
  $("heat").value = value("heat") ? "" : laid || $("heat").options[1].value;
  remember();
}
const flip = (...names) => names.forEach((name) => $(`layer-${name}`) && $(`layer-${name}`).click());
const choose = () => (focused() >= 0 ? mark("", [focused()], !marks.get("").has(focused())) : null);
const anywhere = {
  m: nextMap, "[": () => slide(-10), "]": () => slide(10), t: () => flip("truth"), h: flipMap, b: () => flip("top", "other"), c: () => flip("cut"),
  x: choose, z: undo, y: redo,
};
const onPage = { "/": () => $("words").focus(), j: () => stepCard(1), k: () => stepCard(-1), o: () => openLarge(focused()) };
const inLarge = {
  j: () => stepLarge(1), k: () => stepLarge(-1), o: () => closeLarge(), "+": () => zoom(1 / 1.4), "-": () => zoom(1.4), f: fit, e: toggleTool, a: accept, n: newBox,
  ".": nextBox, d: deleteBox, 0: () => $("no-object").click(), u: () => $("unclear").click(), r: () => $("forget").click(),
};
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function press(event) {
  const { key, target } = event;
  if (key === "Escape" && target.id === "words") {
    $("words").value = "";
    $("words").blur();
    return update();
  }
  const typing = target.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]),select,textarea");
  if ((event.ctrlKey || event.metaKey) && !typing && (key === "z" || key === "Z")) {
    event.preventDefault();
    return event.shiftKey ? redo() : undo();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (large.open && key === "Escape") {
    event.preventDefault();
    return escape();
  }
  if (large.open && arrows[key] && !target.matches("input")) {
    event.preventDefault();
    const [x, y] = arrows[key];
    if (!(large.tool && nudge(x * Math.max(1, pixel()), y * Math.max(1, pixel()), event.shiftKey)) && x) stepLarge(x);
    return;
  }
  if (large.open && (key === "Delete" || key === "Backspace")) return deleteBox();
  if (key === "Enter" && !large.open && target.matches(".card")) return openLarge(focused());
  if (large.open && !cards[large.i] && !"jkox".includes(key)) return large.dialog.querySelector("iframe").contentWindow.focus();
  const act = (large.open ? inLarge[key] : onPage[key]) || anywhere[key];
  if (!act) return;
  event.preventDefault();
  act();
}

function start() {
  if (framed) document.documentElement.classList.add("framed");
  const small = matchMedia("(max-width:820px)").matches;
  if (small) for (const option of $("per").options) option.defaultSelected = option.text === "12";
  gallery.querySelectorAll(".browse,.cutting,.choose").forEach((part) => (part.hidden = false));
  for (const button of gallery.querySelectorAll(".fold")) {
    const panel = $(button.getAttribute("aria-controls"));
    const fold = (open) => { panel.hidden = !open; button.setAttribute("aria-expanded", open); };
    button.addEventListener("click", () => fold(panel.hidden));
    if (panel.id === "fold-layers" && small) fold(false);
  }
  for (const form of gallery.querySelectorAll(".browse,.cutting,.layers")) {
    form.addEventListener("input", update);
    form.addEventListener("reset", () => setTimeout(update));
  }
  for (const form of gallery.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  $("pager-back").addEventListener("click", () => turn(-1));
  $("pager-on").addEventListener("click", () => turn(1));
  const acts = {
    "choose-found": () => mark("", found, true), "choose-none": () => mark("", [...marks.get("")], false), undo, redo, "save-rows": saveRows, "save-corrections": saveCorrections,
    "tag-on": () => { if ($("tag").value.trim()) mark($("tag").value.trim(), [...marks.get("")], true); },
    "tag-off": () => { if ($("tag").value.trim()) mark($("tag").value.trim(), [...marks.get("")], false); },
  };
  for (const [id, act] of Object.entries(acts)) $(id).addEventListener("click", act);
  $("open-saved").addEventListener("change", () => $("open-saved").files[0] && openSaved($("open-saved").files[0]));
  holder.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    if (event.target.matches(".chosen")) chooseOne(placed.get(card.id), event.target.checked, event.shiftKey);
    else if (event.target.closest(".scene")) openLarge(placed.get(card.id));
  });
  pane.addEventListener("scroll", paintList);
  startScatter();
  document.addEventListener("keydown", press);
  addEventListener("storage", (event) => {
    if (event.key && Object.values(prefixes).some((prefix) => event.key.startsWith(prefix))) {
      load();
      refresh();
    }
  });
  addEventListener("message", (event) => {
    const frame = large.dialog && large.dialog.querySelector("iframe"), { wsolpipe, key, text, by, row } = event.data || {};
    if (!frame || event.source !== frame.contentWindow) return;
    if (wsolpipe === "step") stepLarge(by);
    if (wsolpipe === "close") closeLarge();
    if (wsolpipe === "shown") frame.dataset.shown = row;
    if (wsolpipe === "kept" && Object.values(prefixes).some((prefix) => String(key).startsWith(prefix)) && store.getItem(key) !== text) {
      if (text === null) store.removeItem(key);
      else store.setItem(key, String(text));
      load();
      refresh();
    }
  });
  recall();
  load();
  refresh();
  restore();
  if (served) startServed();
}

if (gallery) start();
else recall();
go();
addEventListener("hashchange", () => {
  recall();
  if (gallery) restore();
  go();
});
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  state.place = link.getAttribute("href").slice(1);
  if (gallery && placed.has(state.place)) showCardOf(placed.get(state.place));
  remember();
  go();
});

// ---- Marks and corrections: kept in the browser's storage as they are made, a key a corrected row and a key a mark, so
// that two windows never write over each other and a reload loses nothing. Shared by the report and its pages of rows.
const store = (() => {
  try {
    localStorage.setItem("wsolpipe", "1");
    return localStorage;
  } catch {
    const values = {};
    return { values, getItem: (key) => values[key] ?? null, setItem: (key, text) => (values[key] = text), removeItem: (key) => delete values[key] };
  }
})();
const prefixes = Object.fromEntries(Object.entries(table.about || {}).map(([part, about]) => [part, `wsolpipe/${about.dataset}/${about.split}/${about.index}/`]));
const keyOf = (i, kind) => `${prefixes[table.part[i]]}${kind}`;
const marks = new Map([["", new Set()]]); // "" is the choice itself, others are tags
const edits = new Map(); // row -> {boxes: [[x0, y0, x1, y1, label]], unclear}
const done = [], undone = [];

const isMarked = (i, kind) => (kind === "chosen" ? marks.get("").has(i) : kind === "corrected" ? edits.has(i) && !edits.get(i).unclear
  : kind === "unclear" ? edits.has(i) && edits.get(i).unclear === true : (marks.get(kind.slice("tag ".length)) || new Set()).has(i));

function write(key, text) {
  if (text === null) store.removeItem(key);
  else store.setItem(key, text);
  if (framed) window.parent.postMessage({ wsolpipe: "kept", key, text }, "*"); // browsers that give each file a storage of its own
}

function load() {
  writeMarks();
  marks.clear();
  marks.set("", new Set());
  edits.clear();
  for (const key of Object.keys(store.values || store)) {
    for (const [part, prefix] of Object.entries(prefixes)) {
      if (!key.startsWith(prefix)) continue;
      const [kind, name] = [key.slice(prefix.length).split("/")[0], key.slice(prefix.length).split("/").slice(1).join("/")];
      try {
        const stored = JSON.parse(store.getItem(key));
        if (kind === "mark") {
          if (!marks.has(name)) marks.set(name, new Set());
          for (const row of stored) if (placed.has(`${part}r${row}`)) marks.get(name).add(placed.get(`${part}r${row}`));
        } else if (kind === "edit" && placed.has(`${part}r${name}`)) edits.set(placed.get(`${part}r${name}`), stored);
      } catch { /* of another version */ }
    }
  }
}

// Changes of marks that are not in the storage yet: key -> row -> whether it is marked. What another tab wrote stays.
const late = new Map();
function writeMarks() {
  for (const [key, changes] of late) {
    const kept = new Set(JSON.parse(store.getItem(key) || "[]"));
    for (const [row, on] of changes) kept[on ? "add" : "delete"](row);
    write(key, kept.size ? JSON.stringify([...kept]) : null);
  }
  late.clear();
}
addEventListener("pagehide", writeMarks);

function putMark(name, rows, on) {
  if (!marks.has(name)) marks.set(name, new Set());
  const own = marks.get(name), changed = rows.filter((i) => own.has(i) !== on);
  for (const [part, prefix] of Object.entries(prefixes)) {
    const key = `${prefix}mark/${name}`, changes = late.get(key) || new Map();
    for (const i of changed) if (table.part[i] === part) changes.set(table.row[i], on);
    if (changes.size) late.set(key, changes);
  }
  for (const i of changed) own[on ? "add" : "delete"](i);
  if (changed.length) setTimeout(writeMarks); // tens of thousands of rows take longer to write than to choose
  if (!own.size && name) marks.delete(name);
  return changed;
}

function putEdit(i, edit) {
  if (edit) edits.set(i, edit);
  else edits.delete(i);
  write(keyOf(i, `edit/${table.row[i]}`), edit ? JSON.stringify(edit) : null);
  send(i);
}

// Every act can be undone; `act` is [do, undo].
function perform(act) {
  act[0]();
  done.push(act);
  undone.length = 0;
  refresh();
}
function mark(name, rows, on) {
  const changed = rows.filter((i) => (marks.get(name) || new Set()).has(i) !== on);
  if (changed.length) perform([() => putMark(name, changed, on), () => putMark(name, changed, !on)]);
}
function edit(i, next) {
  const before = edits.get(i) || null;
  if (JSON.stringify(before) !== JSON.stringify(next)) perform([() => putEdit(i, next), () => putEdit(i, before)]);
}
function step(from, to, way) {
  const act = from.pop();
  if (!act) return;
  act[way]();
  to.push(act);
  refresh();
}
const undo = () => step(done, undone, 1);
const redo = () => step(undone, done, 0);

const stateOf = (i) => (!edits.has(i) ? "" : edits.get(i).unclear ? "unclear" : edits.get(i).boxes.length ? "corrected" : "no object");
const tagsOf = (i) => [...marks].filter(([name, rows]) => name && rows.has(i)).map(([name]) => name);

function paintMarks(card, i) {
  if (!card) return;
  const chosen = marks.get("").has(i);
  card.classList.toggle("is-chosen", chosen);
  card.querySelector(".chosen").checked = chosen;
  const words = [stateOf(i), ...tagsOf(i)].filter(Boolean);
  card.querySelector(".marks").replaceChildren(...words.map((word) => Object.assign(document.createElement("span"), { className: "mark", textContent: word })));
  const group = card.querySelector(".scene .human");
  group.textContent = "";
  for (const box of (edits.get(i) || { boxes: [] }).boxes || []) group.append(...["halo", "line"].map((style) => rectangle(style, ...box.slice(0, 4))));
}

function refresh() {
  for (const i of here) paintMarks(cards[i], i);
  if (large.open) large.paint();
  $("chosen-count").textContent = marks.get("").size;
  $("undo").disabled = !done.length;
  $("redo").disabled = !undone.length;
  const tags = [...marks.keys()].filter(Boolean).sort(), filter = $("marked"), had = filter.value;
  for (const option of [...filter.options].slice(4)) option.remove();
  filter.append(...tags.map((name) => new Option(`tag: ${name}`, `tag ${name}`)));
  filter.value = had;
  if (filter.selectedIndex === -1) filter.value = "";
  $("tags").replaceChildren(...tags.map((name) => new Option(name)));
  const counts = ["corrected", "no object", "unclear"].map((kind) => [kind, [...edits.keys()].filter((i) => stateOf(i) === kind).length]);
  $("saved").value = counts.filter(([, count]) => count).map(([kind, count]) => `${count} ${kind}`).join(", ");
  nextStep();
  if (value("marked")) {
    select();
    show();
  }
  paint();
}

// ---- What leaves the page: a list of rows that commands take as rows=@FILE, and boxes that import takes.
function saveFile(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const byPart = (rows) => Object.entries(table.about).map(([part, about]) => [about, rows.filter((i) => table.part[i] === part)]).filter(([, own]) => own.length);
const fileOf = (kind, about, ending) => `${kind}-${about.dataset}-${about.split}.${ending}`.replace(/[^\w.-]/g, "_");

const inOrder = (rows) => [...rows].sort((a, b) => table.row[a] - table.row[b]);
function rowsFile(about, rows) {
  const lines = rows.map((i) => JSON.stringify({ row: table.row[i], image_id: table.id[i], ...(tagsOf(i).length ? { tags: tagsOf(i) } : {}) }));
  return `{"dataset": ${JSON.stringify(about.dataset)}, "split": ${JSON.stringify(about.split)}, "index": ${JSON.stringify(about.index)}, "rows": [\n${lines.join(",\n")}\n]}\n`;
}
// One line an image that somebody touched, as export and import format=jsonl have it; an unclear one is not taken in.
function lineOf(i) {
  const { boxes = [], unclear } = edits.get(i), [width, height] = table.pixels[i];
  const named = boxes.map(([x0, y0, x1, y1, label]) => ({ box: [x0, y0, x1, y1], ...(label === undefined || label === null ? {} : { ...(table.names[label] ? { name: table.names[label] } : {}), label }) }));
  return { image_id: table.id[i], row: table.row[i], width, height, labels: table.classes[i], boxes: named, ...(unclear ? { unclear: true } : {}) };
}
function saveRows() {
  for (const [about, rows] of byPart(inOrder(marks.get("")))) saveFile(fileOf("rows", about, "json"), rowsFile(about, rows));
}
function saveCorrections() {
  for (const [about, rows] of byPart(inOrder(edits.keys()))) saveFile(fileOf("corrections", about, "jsonl"), rows.map((i) => `${JSON.stringify(lineOf(i))}\n`).join(""));
}
function nextStep() {
  const [any] = edits.size ? edits.keys() : marks.get(""), about = any === undefined ? null : table.about[table.part[any]];
  const place = about ? `dataset=${about.dataset} split=${about.split}${about.store ? ` store=${about.store}` : ""}` : "";
  const code = (text) => Object.assign(document.createElement("code"), { textContent: text });
  $("next-step").replaceChildren(...(edits.size && !served ? ["Saved corrections enter the store by ", code(`wsolpipe import format=jsonl in=${fileOf("corrections", about, "jsonl")} ${place} over=${about.over || "STAGE"} drawn=listed`), ". "] : []),
    ...(marks.get("").size ? ["Saved rows are what ", code(`rows=@${fileOf("rows", about, "json")}`), " names."] : []));
}

// A file that was saved here, or the boxes of wsolpipe export format=jsonl.
async function openSaved(file) {
  const text = await file.text(), byName = new Map(table.id.map((id, i) => [id, i]));
  let taken = 0;
  const acts = [];
  try {
    const whole = text.trimStart().startsWith('{"dataset"') ? JSON.parse(text).rows : text.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    for (const item of whole) {
      const i = byName.get(item.image_id);
      if (i === undefined) continue;
      taken++;
      if (!item.boxes) acts.push(["", i], ...(item.tags || []).map((tag) => [tag, i]));
      else {
        const next = { boxes: item.boxes.map((each) => [...each.box, ...(each.label === undefined ? [] : [each.label])]), ...(item.unclear ? { unclear: true } : {}) };
        edit(i, next);
      }
    }
    for (const name of new Set(acts.map(([tag]) => tag))) mark(name, acts.filter(([tag]) => tag === name).map(([, i]) => i), true);
    $("saved").value = `${taken} rows of ${file.name}`;
  } catch {
    $("saved").value = `${file.name} is not a file that was saved here`;
  }
}

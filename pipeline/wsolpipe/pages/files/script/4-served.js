// ---- A page of wsolpipe serve: what is corrected goes to its server, row by row, and again until it has arrived. What a
// page that is a file knows stays as it is: the browser's storage holds every correction first.
const served = document.documentElement.dataset.served || "";
const waiting = new Map();
const AT_ONCE = 200;
let sending = false;

function send(i) {
  if (!served) return;
  waiting.set(address(i), i);
  flush();
}

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json", "X-Wsolpipe-Token": served }, body: JSON.stringify(body) });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { refused: true });
  return answer.json();
}

async function flush() {
  if (sending || !waiting.size) return;
  sending = true;
  const batch = [...waiting.entries()].slice(0, AT_ONCE);
  for (const [name] of batch) waiting.delete(name);
  try {
    await ask("/corrections", batch.map(([, i]) => ({ image_id: table.id[i], line: edits.has(i) ? lineOf(i) : null })));
    sending = false;
  } catch (error) {
    sending = false;
    for (const [name, i] of batch) if (!waiting.has(name)) waiting.set(name, i);
    tell(`not saved yet: ${error.refused ? error.message : "the server does not answer"}; kept in this browser`);
    setTimeout(flush, 2000);
    return;
  }
  if (waiting.size) flush();
  else progress();
}

function tell(text) {
  $("live").value = text;
}

// How far the stages of the split are; a page that is opened again shows what has grown.
async function progress() {
  try {
    const { corrected, stages, note } = await ask("/progress");
    const growing = Object.entries(stages).filter(([, [made, rows]]) => made < rows).map(([name, [made, rows]]) => `${name}: ${made} of ${rows} rows`);
    tell([waiting.size ? `${waiting.size} rows not saved yet` : `${corrected} corrected rows saved`, note, ...growing].filter(Boolean).join("; "));
  } catch {
    tell("the server has ended; corrections stay in this browser");
  }
}

function startServed() {
  for (const i of edits.keys()) waiting.set(address(i), i);
  flush();
  progress();
  setInterval(progress, 4000);
}

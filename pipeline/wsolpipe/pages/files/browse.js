// Sorts, filters and cuts what the page already shows. Without it every switch and link works by itself.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const numeric = (text) => (text === "" || text === undefined ? NaN : Number(text));
  const value = (id) => ($(id) ? ($(id).type === "checkbox" ? $(id).checked : $(id).value) : "");

  // The view is kept in the address, so that a link or a reload brings it back: every control that is not as the page
  // opens it, and as "at" the part of the page that a link led to.
  const controls = [...document.querySelectorAll("form.browse,form.cutting,form.layers")].flatMap((form) => [...form.elements]).filter((part) => part.id && part.matches("input,select"));
  const ticked = (part) => part.type === "checkbox" || part.type === "radio";
  const initial = (part) => (ticked(part) ? part.defaultChecked : part.tagName === "SELECT"
    ? ([...part.options].find((option) => option.defaultSelected) || part.options[0]).value : part.defaultValue);
  const now = (part) => (ticked(part) ? part.checked : part.value);
  let place = "";

  function remember() {
    const kept = new URLSearchParams();
    for (const part of controls) {
      if (now(part) === initial(part)) continue;
      if (part.type !== "radio") kept.set(part.id, now(part));
      else if (part.checked) kept.set(part.name, part.id);
    }
    const view = kept.toString();
    if (place && view) kept.set("at", place);
    history.replaceState(null, "", `#${view ? kept : place}`);
  }

  function recall() {
    const text = location.hash.slice(1), given = new URLSearchParams(text.includes("=") ? text : "");
    place = text.includes("=") ? given.get("at") || "" : new URLSearchParams(`at=${text}`).get("at");
    for (const part of controls) {
      const kept = part.type === "radio" ? given.has(part.name) && String(given.get(part.name) === part.id) : given.get(part.id);
      if (ticked(part)) part.checked = kept ? kept === "true" : initial(part);
      else part.value = kept === null ? initial(part) : kept;
      if (part.selectedIndex === -1) part.value = initial(part); // an address of another page
    }
  }

  function go() {
    if (place && $(place)) $(place).scrollIntoView();
  }

  function browse(gallery) {
    const holder = gallery.querySelector(".cards");
    const cards = [...holder.children];
    const order = new Map(cards.map((card, place) => [card, place]));
    const cuts = JSON.parse($("cuts").textContent);
    gallery.querySelectorAll(".browse,.cutting,.keys").forEach((part) => (part.hidden = false));

    // A box of a map at a threshold: the last run that begins at or before it.
    function cutOf(card, slot, level) {
      const stored = cuts[card.id] && cuts[card.id][slot];
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
    function standardIou(box, card) {
      if (!card.dataset.truth) return NaN;
      const side = 224, clipped = [box[0], box[1], Math.min(box[2], side - 1), Math.min(box[3], side - 1)];
      const area = (b) => (b[2] - b[0] + 1) * (b[3] - b[1] + 1);
      let best = 0;
      for (const text of card.dataset.truth.split(";")) {
        const own = text.split(",").map((edge, place) => Math.trunc((Number(edge) * side) / Number(place % 2 ? card.dataset.height : card.dataset.width)));
        const wide = Math.max(0, Math.min(own[2], clipped[2]) - Math.max(own[0], clipped[0]) + 1);
        const high = Math.max(0, Math.min(own[3], clipped[3]) - Math.max(own[1], clipped[1]) + 1);
        best = Math.max(best, (wide * high) / (area(own) + area(clipped) - wide * high));
      }
      return best;
    }

    function redraw() {
      if (!$("tau")) return;
      const level = Number($("tau").value), slot = $("cut-slot").value;
      $("tau-shown").value = (level / 1000).toFixed(3);
      for (const card of cards) {
        const box = cutOf(card, slot, level), [w, h] = [card.dataset.width / 224, card.dataset.height / 224];
        const group = card.querySelector(".scene .cut");
        group.textContent = "";
        card.dataset.cut = "";
        let told = "";
        if (box) {
          card.dataset.box = box.join(",");
          for (const name of ["halo", "line"]) {
            const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
            rect.setAttribute("class", name);
            [["x", box[0] * w], ["y", box[1] * h], ["width", (box[2] - box[0]) * w], ["height", (box[3] - box[1]) * h]]
              .forEach(([edge, at]) => rect.setAttribute(edge, at.toFixed(1)));
            group.append(rect);
          }
          const iou = standardIou(box, card);
          if (!Number.isNaN(iou)) {
            card.dataset.cut = iou;
            told = `cut at ${(level / 1000).toFixed(3)}: IoU ${(100 * iou).toFixed(1)}`;
          }
        }
        card.querySelector(".cut-iou").textContent = told;
      }
      tally();
    }

    function tally() {
      const group = gallery.querySelector("[name=group]:checked"), name = group ? group.id.slice("group-".length) : "all";
      const shown = cards.filter((card) => !card.hidden && (name === "all" || card.classList.contains(name)));
      gallery.querySelector(".empty-result").hidden = shown.length > 0;
      $("found").value = `${shown.length} of ${cards.length} rows`;
      if (!$("cut-figures")) return;
      const ious = shown.map((card) => numeric(card.dataset.cut)).filter((iou) => !Number.isNaN(iou));
      const share = (level) => ((100 * ious.filter((iou) => iou >= level).length) / ious.length).toFixed(1);
      const mean = (100 * ious.reduce((sum, iou) => sum + iou, 0)) / ious.length;
      $("cut-figures").value = ious.length
        ? `of these ${ious.length} rows: MaxBoxAcc ${share(0.5)}, mean IoU ${mean.toFixed(1)}` : "";
    }

    function filter() {
      const words = value("words").toLowerCase().split(/\s+/).filter(Boolean);
      const [low, high, least] = ["iou-from", "iou-to", "score-from"].map((id) => numeric(value(id)));
      for (const card of cards) {
        const data = card.dataset, iou = 100 * numeric(data.iou), score = numeric(data.score);
        card.hidden = !(
          words.every((word) => data.words.includes(word)) &&
          (!value("class") || data.class.split("\n").includes(value("class"))) &&
          (!value("status") || data.status === value("status")) &&
          (!value("stage") || data.stage === value("stage")) &&
          (Number.isNaN(low) || iou >= low) && (Number.isNaN(high) || iou <= high) &&
          (Number.isNaN(least) || score >= least)
        );
      }
      tally();
    }

    let sorted = "";
    function sort() {
      sorted = value("sort");
      const by = sorted, sign = value("down") ? -1 : 1;
      const compare = (a, b) => {
        if (by === "class") return sign * a.dataset.class.localeCompare(b.dataset.class) || order.get(a) - order.get(b);
        const [x, y] = [numeric(a.dataset[by]), numeric(b.dataset[by])];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || order.get(a) - order.get(b);
        return sign * (x - y) || order.get(a) - order.get(b);
      };
      holder.append(...[...cards].sort(by ? compare : (a, b) => order.get(a) - order.get(b)));
    }

    function update(event) {
      const id = event && event.target.id;
      if (id === "tau" || id === "cut-slot") redraw();
      filter();
      if (["sort", "down"].includes(id) || (value("sort") === "cut" && event && event.type === "change")) sort();
      remember();
    }

    for (const form of gallery.querySelectorAll(".browse,.cutting,.layers")) {
      form.addEventListener("input", update);
      form.addEventListener("change", update);
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("reset", () => setTimeout(() => { filter(); sort(); remember(); }));
    }
    const restore = () => { redraw(); filter(); if (sorted || value("sort")) sort(); };
    restore();

    function step(by) {
      const shown = [...holder.children].filter((card) => !card.hidden && card.offsetParent !== null);
      const here = shown.indexOf(document.activeElement.closest(".card"));
      const next = shown[Math.min(Math.max(here + by, 0), shown.length - 1)];
      if (next) next.focus();
    }

    function nextMap() {
      const card = document.activeElement.closest(".card");
      const picks = card ? [...card.querySelectorAll(".maps input")] : [];
      if (!picks.length) return;
      const next = picks[(picks.findIndex((pick) => pick.checked) + 1) % picks.length];
      next.checked = true;
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
    const keys = {
      "/": () => $("words").focus(), j: () => step(1), k: () => step(-1), m: nextMap, "[": () => slide(-10), "]": () => slide(10),
      t: () => flip("truth"), h: flipMap, b: () => flip("top", "other"), c: () => flip("cut"),
    };
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && event.target.id === "words") {
        $("words").value = "";
        $("words").blur();
        update();
        return;
      }
      const typing = event.target.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]),select");
      if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    return restore;
  }

  // Rows of every page that lies beside this one: only those in sight are in the document.
  function list(table) {
    const all = JSON.parse($("all-rows").textContent), HIGH = 28;
    const pane = table.querySelector(".pane"), space = table.querySelector(".space"), body = table.querySelector(".lines");
    let rows = all.row.map((_, at) => at);
    table.querySelectorAll("[hidden]").forEach((part) => (part.hidden = false));
    const shown = (value) => (value === null ? "–" : (value / 10).toFixed(1));

    function paint() {
      const first = Math.max(0, Math.floor(pane.scrollTop / HIGH) - 5), last = Math.min(rows.length, first + Math.ceil(pane.clientHeight / HIGH) + 10);
      space.style.height = `${rows.length * HIGH}px`;
      body.style.transform = `translateY(${first * HIGH}px)`;
      body.replaceChildren(...rows.slice(first, last).map((at) => {
        const line = document.createElement("a");
        line.href = `${all.folder}/${String(all.page[at]).padStart(4, "0")}.html#r${all.row[at]}`;
        const difference = all.difference ? [shown(all.difference[at])] : [];
        [all.row[at], all.name[at], all.classes[all.class[at]] || "", all.statuses[all.status[at]], shown(all.iou[at]), all.score[at] === null ? "–" : all.score[at].toFixed(3), ...difference]
          .forEach((text) => { const cell = document.createElement("span"); cell.textContent = text; line.append(cell); });
        return line;
      }));
    }

    function choose() {
      const words = $("all-words").value.toLowerCase().split(/\s+/).filter(Boolean), by = $("all-sort").value, sign = $("all-down").checked ? -1 : 1;
      const low = numeric($("all-iou-from").value), high = numeric($("all-iou-to").value), least = numeric($("all-score-from").value);
      const [status, label, stage] = ["all-status", "all-class", "all-stage"].map(value);
      rows = all.row.map((_, at) => at).filter((at) => {
        const text = `${all.name[at]} ${all.classes[all.class[at]] || ""} ${all.statuses[all.status[at]]}`.toLowerCase();
        const iou = all.iou[at] === null ? NaN : all.iou[at] / 10;
        return words.every((word) => text.includes(word)) && (!status || all.statuses[all.status[at]] === status)
          && (!label || all.classes[all.class[at]] === label) && (!stage || all.stages[all.stage[at]] === stage)
          && (Number.isNaN(least) || (all.score[at] !== null && all.score[at] >= least))
          && (Number.isNaN(low) || iou >= low) && (Number.isNaN(high) || iou <= high);
      });
      const key = (at) => (by === "class" ? all.classes[all.class[at]] || "" : all[by][at]);
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
      });
      $("all-found").value = `${rows.length} of ${all.row.length} rows`;
      pane.scrollTop = 0;
      paint();
    }
    pane.addEventListener("scroll", paint);
    table.querySelector("form").addEventListener("input", () => { choose(); remember(); });
    table.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    choose();
    return choose;
  }

  recall();
  const parts = [...[...document.querySelectorAll(".gallery")].map(browse), ...[...document.querySelectorAll(".all-rows")].map(list)];
  go();
  addEventListener("hashchange", () => { recall(); parts.forEach((restore) => restore()); go(); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    place = link.getAttribute("href").slice(1);
    remember();
    go();
  });
})();

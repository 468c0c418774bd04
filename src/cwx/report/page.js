"use strict";
// What a page does beyond showing: it works without, but for choosing, sorting and enlarging.
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const shown = (element) => element.offsetParent !== null;

  // Theme: the system's, unless the reader has chosen. Storage may be forbidden to local files.
  const stored = (() => { try { return localStorage.getItem("cwx-theme"); } catch { return null; } })();
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;

  function theme() {
    const button = document.getElementById("theme");
    const dark = () => (root.dataset.theme
      ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
    const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try { localStorage.setItem("cwx-theme", root.dataset.theme); } catch { /* for this visit */ }
      label();
    });
    label();
  }

  // Tables.
  function sortable(table) {
    all("thead th", table).forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head, place));
    });
  }

  const words = new Intl.Collator(undefined, { numeric: true });

  function sort(table, head, place) {
    const number = head.classList.contains("num");
    // Numbers are mostly asked for their greatest, words from the start of the alphabet.
    const first = number ? "descending" : "ascending";
    const other = number ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    all("[aria-sort]", table).forEach((it) => it.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const cell = row.cells[place];
      if (!number) return cell.textContent;
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const compare = ([a], [b]) => {
      // What is missing stays at the end either way.
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (number ? a - b : words.compare(a, b));
    };
    const rows = all("tbody tr", table).map((row) => [key(row), row]);
    table.tBodies[0].append(...rows.sort(compare).map(([, row]) => row));
  }

  function filter(input) {
    const part = input.closest(".table, .wall");
    const rows = all("tbody tr", part);
    const says = part.querySelector(".found");
    const wall = part.classList.contains("wall");
    const text = rows.map((row) => (wall ? row.cells[0] : row).textContent.toLowerCase());
    const asked = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    rows.forEach((row, n) => {
      row.hidden = !asked.every((word) => text[n].includes(word));
      left += !row.hidden;
    });
    says.textContent = asked.length ? `${left} of ${rows.length}` : "";
    if (wall) enter(part);
  }

  // Walls of pictures. One picture of each can be reached by Tab, the others by arrow keys.
  const pictures = (within) => all(".pic", within).filter(shown);

  function enter(wall, picture = pictures(wall)[0]) {
    all('.pic[tabindex="0"]', wall).forEach((it) => { it.tabIndex = -1; });
    if (picture) picture.tabIndex = 0;
  }

  function choose(wall) {
    const inputs = all("[data-choose] input", wall);
    if (!inputs.length) return;
    const wanted = new Set(inputs.filter((it) => it.checked).map((it) => it.value));
    all("[data-s]", wall).forEach((it) => { it.hidden = !wanted.has(it.dataset.s); });
    enter(wall);
  }

  // The picture so many places further, over the ends of rows, or rows down; null at the edge.
  function neighbour(picture, right, down) {
    const row = picture.closest("tr");
    if (right || !row) {
      const order = row ? pictures(picture.closest(".wall")) : all(".plate");
      return order[order.indexOf(picture) + right + down] ?? null;
    }
    const cell = picture.closest("td");
    const place = pictures(cell).indexOf(picture);
    const rows = [...row.parentNode.rows].filter(shown);
    for (let n = rows.indexOf(row) + down; rows[n]; n += down) {
      const found = pictures(rows[n].cells[cell.cellIndex]);
      if (found.length) return found[Math.min(place, found.length - 1)];
    }
    return null;
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function move(event) {
    const picture = event.target.closest(".wall .pic");
    if (!picture || event.altKey || event.ctrlKey || event.metaKey) return;
    const row = pictures(picture.closest("tr"));
    const step = STEPS[event.key];
    const next = step ? neighbour(picture, ...step)
      : { Home: row[0], End: row[row.length - 1] }[event.key];
    if (!step && !next) return;
    event.preventDefault();
    if (next) {
      enter(next.closest(".wall"), next);
      next.focus();
    }
  }

  // Enlarging.
  let current = null;
  const zoom = () => document.getElementById("zoom");

  function show(picture) {
    current = picture;
    const image = picture.querySelector("img");
    const large = document.getElementById("zoom-picture");
    large.src = image.src;
    large.alt = image.alt;
    document.getElementById("zoom-says").textContent = image.alt;
    zoom().classList.toggle("plain-figure", picture.classList.contains("plate"));
    const strip = zoom().querySelector(".zoom-row");
    strip.replaceChildren();
    const row = picture.closest("tr");
    if (row) {
      for (const cell of row.cells) {
        const inside = pictures(cell);
        if (strip.childElementCount && inside.length) {
          strip.append(Object.assign(document.createElement("span"), { className: "gap" }));
        }
        for (const other of inside) {
          const copy = other.cloneNode(true);
          copy.tabIndex = -1;
          if (other === picture) copy.setAttribute("aria-current", "true");
          copy.addEventListener("click", () => show(other));
          strip.append(copy);
        }
      }
      strip.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    for (const [act, right] of [["left", -1], ["right", 1]]) {
      zoom().querySelector(`[data-act="${act}"]`).disabled = !neighbour(picture, right, 0);
    }
    if (!zoom().open) zoom().showModal();
  }

  function go(right, down) {
    const next = current && neighbour(current, right, down);
    if (next) show(next);
  }

  function smooth(on) {
    root.classList.toggle("smooth", on);
    all("[data-smooth]").forEach((it) => { it.checked = on; });
    zoom().querySelector('[data-act="smooth"]').setAttribute("aria-pressed", String(on));
  }

  function enlarging() {
    const dialog = zoom();
    const acts = {
      close: () => dialog.close(),
      left: () => go(-1, 0),
      right: () => go(1, 0),
      smooth: () => smooth(!root.classList.contains("smooth")),
    };
    dialog.addEventListener("click", (event) => {
      const act = event.target.closest("[data-act]");
      if (act) acts[act.dataset.act]();
      else if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "s") acts.smooth();
      else if (STEPS[event.key]) {
        event.preventDefault();
        go(...STEPS[event.key]);
      }
    });
    dialog.addEventListener("close", () => {
      // The browser would return to the picture that was opened first.
      if (current?.closest(".wall")) enter(current.closest(".wall"), current);
      current?.focus();
    });
  }

  function start() {
    theme();
    all("table[data-sortable]").forEach(sortable);
    enlarging();
    all(".wall").forEach((wall) => {
      choose(wall);
      enter(wall);
      wall.addEventListener("change", (event) => {
        if (event.target.closest("[data-choose]")) choose(wall);
        if (event.target.matches("[data-most]")) {
          wall.dataset.most = event.target.value;
          enter(wall);
        }
      });
      wall.querySelector("[data-size]").addEventListener("input", (event) => {
        for (const name of ["--tile", "--tile-own"]) {
          wall.style.setProperty(name, `${event.target.value}px`);
        }
      });
    });
    document.addEventListener("input", (event) => {
      if (event.target.matches("[data-filter]")) filter(event.target);
      if (event.target.matches("[data-smooth]")) smooth(event.target.checked);
    });
    document.addEventListener("keydown", move);
    document.addEventListener("click", (event) => {
      const picture = event.target.closest("main .pic");
      if (picture) show(picture);
    });
    root.dataset.ready = "yes";
  }

  document.addEventListener("DOMContentLoaded", start);
})();

"use strict";
// Selecting, sorting, filtering and enlarging. Without scripts, a page shows all of its content.
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const isVisible = (element) => element.offsetParent !== null;

  // Theme: the system's, unless the reader has selected one. Local files may have no storage.
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
      try { localStorage.setItem("cwx-theme", root.dataset.theme); } catch { /* valid for this visit only */ }
      label();
    });
    label();
  }

  // Tables.
  function sortable(table) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head, column));
    });
  }

  const collator = new Intl.Collator(undefined, { numeric: true });

  function sort(table, head, column) {
    const isNumeric = head.classList.contains("num");
    // The first click puts the largest number, or the first word of the alphabet, on top.
    const first = isNumeric ? "descending" : "ascending";
    const other = isNumeric ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    all("[aria-sort]", table).forEach((it) => it.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const cell = row.cells[column];
      if (!isNumeric) return cell.textContent;
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const compare = ([a], [b]) => {
      // Missing values stay at the end in both orders.
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (isNumeric ? a - b : collator.compare(a, b));
    };
    const rows = all("tbody tr", table).map((row) => [key(row), row]);
    table.tBodies[0].append(...rows.sort(compare).map(([, row]) => row));
  }

  function filter(input) {
    const part = input.closest(".table, .image-grid");
    const rows = all("tbody tr", part);
    const matchCount = part.querySelector(".match-count");
    const isGrid = part.classList.contains("image-grid");
    const text = rows.map((row) => (isGrid ? row.cells[0] : row).textContent.toLowerCase());
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let matches = 0;
    rows.forEach((row, n) => {
      row.hidden = !words.every((word) => text[n].includes(word));
      matches += !row.hidden;
    });
    matchCount.textContent = words.length ? `${matches} of ${rows.length}` : "";
    if (isGrid) enter(part);
  }

  // The side in CSS pixels, of at most `room` if possible, at which an image of `side` pixels is
  // shown: each of its pixels is a square of whole pixels of the screen.
  const whole = (side, room) => {
    const ratio = window.devicePixelRatio || 1;
    return (Math.max(1, Math.floor((room * ratio) / side + 1e-6)) * side) / ratio;
  };

  function resize(grid, tile) {
    const native = Number(grid.dataset.native);
    const side = "small" in grid.dataset || tile >= native ? whole(native, tile) : tile;
    for (const name of ["--tile", "--tile-own"]) grid.style.setProperty(name, `${side}px`);
    // A reduced image without smoothing would lose rows of pixels.
    grid.classList.toggle("reduced", side < native);
  }

  // Image grids. Tab reaches one image of each grid, arrow keys reach the others.
  const images = (within) => all(".thumb", within).filter(isVisible);

  function enter(grid, thumb = images(grid)[0]) {
    all('.thumb[tabindex="0"]', grid).forEach((it) => { it.tabIndex = -1; });
    if (thumb) thumb.tabIndex = 0;
  }

  function choose(grid) {
    const inputs = all("[data-choose] input", grid);
    if (!inputs.length) return;
    const wanted = new Set(inputs.filter((it) => it.checked).map((it) => it.value));
    all("[data-s]", grid).forEach((it) => { it.hidden = !wanted.has(it.dataset.s); });
    enter(grid);
  }

  // The image `right` images further in reading order, or `down` rows further; null at the edge.
  function neighbour(thumb, right, down) {
    const row = thumb.closest("tr");
    if (right || !row) {
      const order = row ? images(thumb.closest(".image-grid")) : all(".figure-image");
      return order[order.indexOf(thumb) + right + down] ?? null;
    }
    const cell = thumb.closest("td");
    const index = images(cell).indexOf(thumb);
    const rows = [...row.parentNode.rows].filter(isVisible);
    for (let n = rows.indexOf(row) + down; rows[n]; n += down) {
      const inCell = images(rows[n].cells[cell.cellIndex]);
      if (inCell.length) return inCell[Math.min(index, inCell.length - 1)];
    }
    return null;
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function move(event) {
    const thumb = event.target.closest(".image-grid .thumb");
    if (!thumb || event.altKey || event.ctrlKey || event.metaKey) return;
    const row = images(thumb.closest("tr"));
    const step = STEPS[event.key];
    const next = step ? neighbour(thumb, ...step)
      : { Home: row[0], End: row[row.length - 1] }[event.key];
    if (!step && !next) return;
    event.preventDefault();
    if (next) {
      enter(next.closest(".image-grid"), next);
      next.focus();
    }
  }

  // Enlarging.
  let current = null;
  const zoom = () => document.getElementById("zoom");

  function show(thumb) {
    current = thumb;
    const image = thumb.querySelector("img");
    const large = document.getElementById("zoom-image");
    large.src = image.src;
    large.alt = image.alt;
    document.getElementById("zoom-title").textContent = image.alt;
    const isFigure = thumb.classList.contains("figure-image");
    zoom().classList.toggle("zoomed-figure", isFigure);
    const [width, height] = ["width", "height"].map((name) => Number(image.getAttribute(name)));
    const side = Math.max(width, height);
    const room = innerWidth <= 640 ? 0.74 * innerWidth : Math.min(0.7 * innerWidth, 0.62 * innerHeight);
    const enlarged = !isFigure && side <= room;
    large.style.width = enlarged ? `${(width / side) * whole(side, room)}px` : "";
    large.style.height = enlarged ? `${(height / side) * whole(side, room)}px` : "";
    const strip = zoom().querySelector(".zoom-row");
    strip.style.setProperty("--tile", `${side <= 64 ? whole(side, 52) : 52}px`);
    strip.replaceChildren();
    const row = thumb.closest("tr");
    if (row) {
      for (const cell of row.cells) {
        const inside = images(cell);
        if (strip.childElementCount && inside.length) {
          strip.append(Object.assign(document.createElement("span"), { className: "gap" }));
        }
        for (const other of inside) {
          const copy = other.cloneNode(true);
          copy.tabIndex = -1;
          if (other === thumb) copy.setAttribute("aria-current", "true");
          copy.addEventListener("click", () => show(other));
          strip.append(copy);
        }
      }
      strip.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    for (const [act, right] of [["left", -1], ["right", 1]]) {
      zoom().querySelector(`[data-act="${act}"]`).disabled = !neighbour(thumb, right, 0);
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
      // By default the browser returns the focus to the image that was opened first.
      if (current?.closest(".image-grid")) enter(current.closest(".image-grid"), current);
      current?.focus();
    });
  }

  function start() {
    theme();
    all("table[data-sortable]").forEach(sortable);
    enlarging();
    all(".image-grid").forEach((grid) => {
      choose(grid);
      enter(grid);
      grid.addEventListener("change", (event) => {
        if (event.target.closest("[data-choose]")) choose(grid);
        if (event.target.matches("[data-per-class]")) {
          grid.dataset.perClass = event.target.value;
          enter(grid);
        }
      });
      const size = grid.querySelector("[data-size]");
      // The page's size is for a screen pixel per CSS pixel.
      if (window.devicePixelRatio % 1) resize(grid, Number(size.value));
      grid.classList.toggle("reduced", Number(size.value) < Number(grid.dataset.native));
      size.addEventListener("input", () => resize(grid, Number(size.value)));
    });
    document.addEventListener("input", (event) => {
      if (event.target.matches("[data-filter]")) filter(event.target);
      if (event.target.matches("[data-smooth]")) smooth(event.target.checked);
    });
    document.addEventListener("keydown", move);
    document.addEventListener("click", (event) => {
      const thumb = event.target.closest("main .thumb");
      if (thumb) show(thumb);
    });
    root.dataset.ready = "yes";
  }

  document.addEventListener("DOMContentLoaded", start);
})();

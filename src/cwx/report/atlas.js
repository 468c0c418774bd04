"use strict";
// The table of units: only the rows in view are in the page. All text is set as text, never as HTML.
(() => {
  const $ = (id) => document.getElementById(id);
  const about = JSON.parse($("about").textContent);
  const { networks, classes } = about;
  const TYPES = { i4: Int32Array, f4: Float32Array, i2: Int16Array };

  // Arrays are decoded when they are needed first; those of opened units come after the table.
  const decoded = new Map();
  function column(network, name) {
    const key = `${network} ${name}`;
    if (!decoded.has(key)) {
      const block = document.querySelector(`[data-network="${network}"][data-column="${name}"]`);
      if (!block) return null;
      const bytes = Uint8Array.from(atob(block.textContent), (it) => it.charCodeAt(0));
      decoded.set(key, new TYPES[block.dataset.type](bytes.buffer));
    }
    return decoded.get(key);
  }

  const element = (tag, attributes = {}, ...children) => {
    const it = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) it.setAttribute(name, value);
    it.append(...children);
    return it;
  };
  const number = (value, digits = 2) => {
    if (!Number.isFinite(value)) return "";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  };
  const signed = (value) => (Number(number(value).replace("−", "-")) > 0 ? "+" : "") + number(value);
  const percent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %` : "");
  const className = (label) => classes[label] ?? "";

  // Rows: the layer's name, the unit, and the row of each network; -1 without.
  let rows = [], view = [], measures = [];
  const chosen = () => [Number($("first").value), $("second") ? Number($("second").value) : -1]
    .filter((it, n) => it >= 0 && (n === 0 || it !== Number($("first").value)));

  function match(shown) {
    const byKey = new Map();
    shown.forEach((network, n) => {
      const layers = column(network, "layer"), units = column(network, "unit");
      for (let i = 0; i < layers.length; i++) {
        const { name } = networks[network].layers[layers[i]];
        const key = `${units[i]} ${name}`;
        if (!byKey.has(key)) byKey.set(key, { layer: name, unit: units[i], at: shown.map(() => -1), key });
        byKey.get(key).at[n] = i;
      }
    });
    return [...byKey.values()];
  }

  // The columns of the table: how to read and write a row's value; `text` columns sort by name.
  function columnsOf(shown) {
    const value = (name, n) => {
      const values = column(shown[n], name);
      return (row) => (row.at[n] < 0 ? NaN : values[row.at[n]]);
    };
    const result = [
      { id: "layer", label: "Layer", text: true, read: (row) => row.layer },
      { id: "unit", label: "Unit", read: (row) => row.unit },
    ];
    shown.forEach((network, n) => {
      const label = value("class", n), share = value("class_fraction", n);
      result.push({
        id: `class-${n}`, label: "Class", network, text: true, read: (row) => className(label(row)),
        write: (row) => {
          if (row.at[n] < 0) return "";
          return label(row) < 0 ? "no top image" : `${className(label(row))} ${percent(share(row))}`;
        },
      });
    });
    for (const [name, label, write] of [
      ["lc", "LC", number], ["cs1", "CS₁", number], ["cs2", "CS₂", number],
      ["fires", "Fires on", percent], ["detection", "Detection", number],
    ]) {
      if (shown.some((network) => !column(network, name))) continue;
      const reads = shown.map((_, n) => value(name, n));
      shown.forEach((network, n) => result.push(
        { id: `${name}-${n}`, label, network, read: reads[n], write: (row) => write(reads[n](row)) }));
      if (shown.length > 1 && name !== "fires") {
        const read = (row) => reads[1](row) - reads[0](row);
        result.push({ id: `${name}-2`, label: `Δ ${label}`, read, write: (row) => signed(read(row)), change: true });
      }
    }
    return result;
  }

  let sorting = { id: "lc-0", descending: true };
  const collator = new Intl.Collator(undefined, { numeric: true });

  function sort() {
    const by = measures.find((it) => it.id === sorting.id) ?? measures[0];
    const keys = new Map(view.map((row) => [row, by.read(row)]));
    const missing = (key) => key === "" || Number.isNaN(key);
    const sign = sorting.descending ? -1 : 1;
    const compare = (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      // Missing values stay at the end in both orders.
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return sign * (by.text ? collator.compare(x, y) : x - y);
    };
    view.sort(compare);
    document.querySelectorAll("#atlas thead th").forEach((head) => {
      if (head.dataset.id !== by.id) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
    });
  }

  function head() {
    const row = element("tr", { "aria-rowindex": 1 });
    for (const it of measures) {
      const button = element("button", { type: "button" }, it.label);
      const named = it.network !== undefined && networks.length > 1;
      if (named) button.append(element("small", {}, networks[it.network].name));
      button.addEventListener("click", () => {
        // The first click puts the largest number, or the first word of the alphabet, on top.
        const descending = sorting.id === it.id ? !sorting.descending : !it.text && it.id !== "unit";
        sorting = { id: it.id, descending };
        sort();
        $("scroll").scrollTop = 0;
        draw(true);
      });
      const th = element("th", { scope: "col", "data-id": it.id }, button);
      if (!it.text) th.className = it.change ? "num change" : "num";
      row.append(th);
    }
    document.querySelector("#atlas thead").replaceChildren(row);
  }

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const layer = $("layer").value;
    const kind = $("ranged") ? $("ranged").value : "0";
    const ranges = [];
    document.querySelectorAll("[data-range]").forEach((input) => {
      const by = measures.find((it) => it.id === `${input.dataset.range}-${kind}`);
      if (input.value !== "" && by) ranges.push([by.read, input.dataset.end === "from" ? 1 : -1, Number(input.value)]);
    });
    const named = measures.filter((it) => it.label === "Class");
    view = rows.filter((row) => (!layer || row.layer === layer)
      && ranges.every(([read, sign, bound]) => sign * read(row) >= sign * bound)
      && (!words.length || named.some((it) => {
        const name = it.read(row).toLowerCase();
        return words.every((word) => name.includes(word));
      })));
    $("matches").textContent = view.length === rows.length ? `${rows.length} units` : `${view.length} of ${rows.length} units`;
    sort();
    $("scroll").scrollTop = 0;
    draw(true);
  }

  // The window: rows in view and a few around them, between two rows that take the space of others.
  const AROUND = 8;
  let height = 30, present = new Map();

  function line(index) {
    const row = view[index];
    const tr = element("tr", { "aria-rowindex": index + 2 });
    for (const it of measures) {
      const text = it.write ? it.write(row) : String(it.read(row));
      if (it.id === "unit") {
        const button = element("button", { type: "button" }, text);
        button.setAttribute("aria-label", `Unit ${text} of ${row.layer}`);
        tr.append(element("th", { scope: "row", class: "num" }, button));
      } else {
        const td = element("td", {}, text);
        if (it.text) td.title = text;
        else td.className = it.change ? "num change" : "num";
        tr.append(td);
      }
    }
    tr.dataset.index = index;
    return tr;
  }

  function draw(anew = false) {
    const box = $("scroll"), body = document.querySelector("#atlas tbody");
    if (anew) present = new Map();
    const first = Math.max(0, Math.floor(box.scrollTop / height) - AROUND);
    const last = Math.min(view.length, first + Math.ceil(box.clientHeight / height) + 2 * AROUND);
    const focused = document.activeElement?.closest("#atlas tbody tr")?.dataset.index;
    const lines = new Map();
    for (let n = first; n < last; n++) lines.set(n, present.get(n) ?? line(n));
    present = lines;
    const space = (count) => {
      const td = element("td", { colspan: measures.length });
      td.style.height = `${count * height}px`;
      return element("tr", { "aria-hidden": "true", class: "space" }, td);
    };
    body.replaceChildren(space(first), ...lines.values(), space(view.length - last));
    $("atlas").setAttribute("aria-rowcount", view.length + 1);
    if (focused !== undefined) (lines.get(Number(focused))?.querySelector("button") ?? box).focus({ preventScroll: true });
  }

  function showNetworks() {
    const shown = chosen();
    rows = match(shown);
    measures = columnsOf(shown);
    if (!measures.some((it) => it.id === sorting.id)) sorting = { id: "lc-0", descending: true };
    const layers = [...new Set(shown.flatMap((network) => networks[network].layers.map((it) => it.name)))];
    const select = $("layer"), before = select.value;
    select.replaceChildren(element("option", { value: "" }, "all"), ...layers.map((name) => element("option", { value: name }, name)));
    select.value = layers.includes(before) ? before : "";
    if ($("ranged")) $("ranged").closest("label").hidden = shown.length < 2;
    if ($("ranged") && shown.length < 2) $("ranged").value = "0";
    head();
    filter();
  }

  // An opened unit.
  const SIDE = 96;
  let opened = -1;
  const pictures = new Map();

  function picture(set, index) {
    const key = `${set}-${index}`;
    if (!pictures.has(key)) {
      const image = new Image();
      image.src = $(key)?.textContent ?? "";
      pictures.set(key, image);
      // Decoded pictures take memory: the oldest goes.
      if (pictures.size > 256) pictures.delete(pictures.keys().next().value);
    }
    return pictures.get(key);
  }

  const places = new Map();
  function place(set, image) {
    if (!places.has(set)) {
      const indices = column(-1, `${set}/indices`);
      places.set(set, new Map(indices ? Array.from(indices, (it, n) => [it, n]) : []));
    }
    return places.get(set).get(image);
  }

  function paint(canvas, set, at, box) {
    const layout = about.sets[set], across = about.across;
    const [h, w] = layout.size, [H, W] = about.image_size;
    const scale = [w / W, h / H, w / W, h / H];
    const [x0, y0, x1, y1] = box.map((it, n) => it * scale[n]);
    const whole = box[0] <= 0 && box[1] <= 0 && box[2] >= W && box[3] >= H;
    const empty = box[2] <= box[0] || box[3] <= box[1];
    const isCrop = $("crop").checked && !empty;
    const [left, top, width, height] = isCrop ? [x0, y0, x1 - x0, y1 - y0] : [0, 0, w, h];
    const zoom = (SIDE / Math.max(width, height)) * Math.max(1, Math.round(devicePixelRatio || 1));
    canvas.width = Math.max(1, Math.round(width * zoom));
    canvas.height = Math.max(1, Math.round(height * zoom));
    const image = picture(set, Math.floor(at / across ** 2));
    const tile = at % across ** 2;
    const [pitchY, pitchX] = layout.pitch;
    const put = () => {
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(image, (tile % across) * pitchX + left, Math.floor(tile / across) * pitchY + top, width, height, 0, 0, canvas.width, canvas.height);
      if (isCrop || whole || empty) return;
      for (const [colour, thick] of [["#000", 4], ["#ffe600", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = thick;
        context.strokeRect(x0 * zoom + 1, y0 * zoom + 1, (x1 - x0) * zoom - 2, (y1 - y0) * zoom - 2);
      }
    };
    if (image.complete && image.naturalWidth) put();
    else image.addEventListener("load", put, { once: true });
  }

  function strip(network, row, set, title) {
    const images = column(network, `${set}/images`);
    if (!images) return null;
    const count = about.images;
    const [labels, targets] = ["labels", "targets"].map((name) => column(network, `${set}/${name}`));
    const [activations, boxes] = ["activations", "boxes"].map((name) => column(network, `${set}/${name}`));
    const list = element("ul", { class: "atlas-images" });
    for (let n = row * count; n < (row + 1) * count; n++) {
      if (images[n] < 0) continue;
      const name = className(labels[n]) + (targets ? ` → ${className(targets[n])}` : "");
      const detail = `image ${images[n]}, activation ${number(activations[n])}`;
      const at = place(set, images[n]);
      const canvas = element("canvas", { role: "img", "aria-label": `${name}, ${detail}`, title: detail });
      if (at !== undefined) paint(canvas, set, at, [...boxes.subarray(4 * n, 4 * n + 4)]);
      const shown = at === undefined ? element("span", { class: "left-out" }, `image ${images[n]}`) : canvas;
      list.append(element("li", {}, shown, element("span", { class: "caption" }, name)));
    }
    if (!list.childElementCount) list.append(element("li", { class: "note" }, "No top image: on none is the activation above that of all others."));
    return element("section", {}, element("h3", {}, title), list);
  }

  const FACTS = [
    ["LC", "lc", number], ["CS₁", "cs1", number], ["CS₁, permuted classes", "cs1_permuted", number],
    ["CS₂", "cs2", number], ["CS₂, permuted classes", "cs2_permuted", number], ["Fires on", "fires", percent],
    ["Detection", "detection", (it) => number(it, 3)], ["Detection, at most off by", "detection_error", (it) => number(it, 4)],
  ];

  function facts(shown, row) {
    const table = element("table", {}, element("caption", { class: "sr" }, "Measures of the unit"));
    table.append(element("thead", {}, element("tr", {}, element("td"), ...shown.map((it) => element("th", { scope: "col" }, networks[it].name)))));
    const body = element("tbody");
    const add = (title, write) => body.append(element("tr", {}, element("th", { scope: "row" }, title),
      ...shown.map((network, n) => element("td", {}, row.at[n] < 0 ? "" : write(network, row.at[n])))));
    add("Read after", (network, at) => networks[network].layers[column(network, "layer")[at]].read_after);
    add("Class", (network, at) => {
      const label = column(network, "class")[at];
      return label < 0 ? "no top image" : `${className(label)}, ${percent(column(network, "class_fraction")[at])} of its top images`;
    });
    for (const [title, name, write] of FACTS) {
      if (shown.every((network) => column(network, name))) add(title, (network, at) => write(column(network, name)[at]));
    }
    table.append(body);
    return element("div", { class: "table scroll" }, table);
  }

  function show(index) {
    const row = view[index], shown = chosen();
    if (!row) return;
    opened = index;
    $("unit-title").textContent = `Unit ${row.unit} of ${row.layer} (${index + 1} of ${view.length})`;
    const parts = [facts(shown, row)];
    for (const [set, what] of [["real", "Top test images"], ["adversarial", "Top adversarial images, true class → target"]]) {
      shown.forEach((network, n) => {
        const title = networks.length > 1 ? `${what}: ${networks[network].name}` : what;
        const part = row.at[n] < 0 ? null : strip(network, row.at[n], set, title);
        if (part) parts.push(part);
      });
    }
    $("unit-content").replaceChildren(...parts);
    document.querySelector('[data-step="-1"]').disabled = index === 0;
    document.querySelector('[data-step="1"]').disabled = index === view.length - 1;
    if (!$("unit").open) $("unit").showModal();
  }

  function focusUnit(index) {
    const box = $("scroll"), visible = box.clientHeight - 2 * height;
    const top = index * height;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top > box.scrollTop + visible - height) box.scrollTop = top - visible + height;
    draw();
    present.get(index)?.querySelector("button").focus({ preventScroll: true });
  }

  function listen() {
    let waiting = false;
    const redraw = () => {
      if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
      waiting = true;
    };
    $("scroll").addEventListener("scroll", redraw, { passive: true });
    addEventListener("resize", redraw);
    for (const id of ["first", "second"]) $(id)?.addEventListener("change", showNetworks);
    $("tools").addEventListener("input", (event) => {
      if (!["first", "second"].includes(event.target.id)) filter();
    });
    $("tools").addEventListener("reset", () => setTimeout(showNetworks));
    $("tools").addEventListener("submit", (event) => event.preventDefault());
    const body = document.querySelector("#atlas tbody");
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-index]");
      if (row) show(Number(row.dataset.index));
    });
    body.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const row = event.target.closest("tr[data-index]");
      if (!step || !row) return;
      event.preventDefault();
      const next = Number(row.dataset.index) + step;
      if (view[next]) focusUnit(next);
    });
    const dialog = $("unit");
    dialog.addEventListener("click", (event) => {
      const step = event.target.closest("[data-step]")?.dataset.step;
      if (step === "0" || event.target === dialog) dialog.close();
      else if (step) show(opened + Number(step));
    });
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step && event.target.type !== "checkbox") show(opened + step);
    });
    dialog.addEventListener("close", () => focusUnit(opened));
    $("crop").addEventListener("change", () => show(opened));
  }

  $("tools").hidden = false;
  showNetworks();
  const real = document.querySelector("#atlas tbody tr[data-index]");
  if (real && real.offsetHeight > 0) height = real.getBoundingClientRect().height;
  draw(true);
  listen();
  document.documentElement.dataset.rows = Math.round(performance.now());
})();

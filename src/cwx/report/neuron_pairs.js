"use strict";
// Asks a volunteer which of two neurons represents the higher level of concept, one pair at a time.
// Answers stay in the browser's storage until they are saved to a file.
(() => {
  const LEFT = "left", RIGHT = "right", CANNOT_SAY = "cannot say";
  const KEYS = { ArrowLeft: LEFT, ArrowRight: RIGHT, ArrowDown: CANNOT_SAY };
  // Answers of which the time left is estimated, at least and at most.
  const FEW = 5, MANY = 50;
  const element = (id) => document.getElementById(id);

  let study, uris, session = null, storageWorks = true;

  // The time for which the current pair has been visible, in milliseconds.
  const clock = {
    before: 0, since: null,
    start() { this.before = 0; this.since = document.hidden ? null : performance.now(); },
    pause() { this.before = this.read(); this.since = null; },
    go() { if (this.since === null) this.since = performance.now(); },
    read() { return this.before + (this.since === null ? 0 : performance.now() - this.since); },
  };

  // Sessions, one per volunteer. Pages in files share a storage: its content may be anything.
  const prefix = () => `cwx-neuron-pairs/${study.digest}/`;

  function stored(volunteer) {
    try {
      const { order, answers, started } = JSON.parse(localStorage.getItem(prefix() + volunteer));
      const known = new Set(study.pairs.keys());
      const complete = order.length === known.size && order.every((it) => known.delete(it));
      const matching = answers.length <= order.length && answers.every(
        (it, index) => it.pair === order[index] && [LEFT, RIGHT, CANNOT_SAY].includes(it.answer)
          && it.seconds >= 0);
      return complete && matching ? { volunteer, order, answers, started: String(started) } : null;
    } catch { return null; }
  }

  function volunteers() {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(prefix()))
        .map((key) => key.slice(prefix().length)).filter(stored).sort();
    } catch { return []; }
  }

  function store() {
    const { volunteer, ...rest } = session;
    try {
      localStorage.setItem(prefix() + volunteer, JSON.stringify(rest));
      storageWorks = true;
    } catch { storageWorks = false; }
    element("no-storage").hidden = storageWorks;
  }

  // A random order: Fisher and Yates, with numbers that a seed of the run does not determine.
  function shuffled(items) {
    for (let last = items.length - 1; last > 0; last -= 1) {
      const [number] = crypto.getRandomValues(new Uint32Array(1));
      const other = Math.floor((number / 2 ** 32) * (last + 1));
      [items[last], items[other]] = [items[other], items[last]];
    }
    return items;
  }

  function begin(volunteer) {
    session = stored(volunteer) ?? {
      volunteer, order: shuffled([...study.pairs.keys()]), answers: [],
      started: new Date().toISOString(),
    };
    store();
    show();
  }

  function show() {
    const done = session.answers.length, count = session.order.length;
    element("start").hidden = true;
    element("task").hidden = done === count;
    element("end").hidden = done < count;
    element("bar").hidden = false;
    element("progress").max = count;
    element("progress").value = done;
    element("count").textContent = `${done} of ${count} answered`;
    element("left-over").textContent = timeLeft();
    element("undo").disabled = done === 0;
    if (done === count) {
      element("thanks").textContent = `Thank you, ${session.volunteer}.`;
      element("save").focus();
      return;
    }
    pictures(session.order[done]).forEach((uri, side) => {
      element(side ? "right-picture" : "left-picture").src = uri;
    });
    // So that the next pair appears at once.
    if (done + 1 < count) {
      pictures(session.order[done + 1]).forEach((uri) => { new Image().src = uri; });
    }
    clock.start();
  }

  function pictures(pair) {
    return study.pairs.get(pair).map((neuron) => uris.get(String(neuron)).textContent);
  }

  function timeLeft() {
    const times = session.answers.slice(-MANY).map((it) => it.seconds).sort((a, b) => a - b);
    const rest = session.order.length - session.answers.length;
    if (times.length < FEW || !rest) return "";
    const seconds = times[Math.floor(times.length / 2)] * rest;
    const minutes = Math.max(1, Math.ceil(seconds / 60));
    return `about ${minutes} minute${minutes > 1 ? "s" : ""} left`;
  }

  function give(answer) {
    const pair = session.order[session.answers.length];
    const seconds = Math.round(clock.read()) / 1000;
    session.answers.push({ pair, answer, seconds });
    store();
    show();
    element("status").textContent = `Answered: ${answer}.`;
  }

  function undo() {
    if (!session?.answers.length) return;
    session.answers.pop();
    store();
    show();
    element("status").textContent = "The last answer is taken back.";
  }

  function answersText() {
    const { volunteer, started, answers } = session;
    const saved = new Date().toISOString();
    return JSON.stringify({ study: study.digest, volunteer, started, saved, answers }, null, 1);
  }

  function save() {
    const name = session.volunteer.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([answersText()], { type: "application/json" }));
    link.download = `answers-${name.replace(/^-+|-+$/g, "") || "volunteer"}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    element("status").textContent =
      `Saved to ${link.download}. Send this file to the person who gave you this page.`;
  }

  function pause() {
    session = null;
    ["task", "end", "bar"].forEach((id) => { element(id).hidden = true; });
    element("start").hidden = false;
    welcome();
    element("name").focus();
  }

  function welcome() {
    const buttons = volunteers().map((volunteer) => {
      const { answers, order } = stored(volunteer);
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `Continue as ${volunteer} (${answers.length} of ${order.length})`;
      button.addEventListener("click", () => begin(volunteer));
      return button;
    });
    element("sessions").replaceChildren(...buttons);
    element("known").hidden = !buttons.length;
  }

  function pressed(event) {
    if (!session || event.ctrlKey || event.metaKey || event.altKey) return;
    const asks = !element("task").hidden;
    if (asks && KEYS[event.key]) {
      event.preventDefault();
      // A key that stays down is one answer.
      if (!event.repeat) give(KEYS[event.key]);
    } else if (event.key === "Backspace" && !event.repeat) {
      event.preventDefault();
      undo();
    }
  }

  // Each pixel of a picture is a square of whole screen pixels, as large as the window allows.
  function resize() {
    const root = document.documentElement;
    const room = Math.min((root.clientWidth - 90) / 2 / study.width,
      (innerHeight - 250) / study.height);
    const ratio = window.devicePixelRatio || 1;
    const factor = Math.max(1, Math.floor(room * ratio)) / ratio;
    root.style.setProperty("--picture", `${factor * study.width}px`);
  }

  function start() {
    const { digest, pairs, width, height } = JSON.parse(element("study").textContent);
    study = { digest, width, height, pairs: new Map(pairs.map(([n, ...sides]) => [n, sides])) };
    uris = new Map([...document.querySelectorAll("[data-picture]")].map(
      (it) => [it.dataset.picture, it]));
    element("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = element("name").value.trim();
      if (name) begin(name);
    });
    const answers = [["left", LEFT], ["right", RIGHT], ["cannot-say", CANNOT_SAY]];
    for (const [id, answer] of answers) {
      element(id).addEventListener("click", (event) => {
        // The second click of a double click is no answer to the next pair.
        if (event.detail <= 1) give(answer);
      });
    }
    element("undo").addEventListener("click", undo);
    element("save").addEventListener("click", save);
    element("pause").addEventListener("click", pause);
    document.addEventListener("keydown", pressed);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clock.pause(); else clock.go();
    });
    // The same volunteer in another tab.
    addEventListener("storage", (event) => {
      const changed = session && event.key === prefix() + session.volunteer;
      const other = changed && stored(session.volunteer);
      if (other) { session = other; show(); }
    });
    addEventListener("resize", resize);
    addEventListener("beforeunload", (event) => {
      if (session?.answers.length && !storageWorks) event.preventDefault();
    });
    resize();
    welcome();
    element("form").hidden = false;
    document.documentElement.dataset.ready = "yes";
  }

  // For tests.
  globalThis.answersText = answersText;
  document.addEventListener("DOMContentLoaded", start);
})();

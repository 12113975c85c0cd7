// What the pages do besides htmx: copying, ticking times, sliders, ticking all boxes of a group.
(() => {
  "use strict";
  document.documentElement.classList.add("js");

  // --- Copy buttons -----------------------------------------------------------------------
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const said = button.querySelector("[data-said]");
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      said.textContent = "copied";
    } catch {
      said.textContent = "not copied: select the text instead";
    }
    setTimeout(() => { said.textContent = ""; }, 2000);
  });

  // --- A refusal where a part of the answer was asked for: it has no such part, and what is there
  // must not be swapped for nothing. Its sentence is put before what is there, and the address stays
  // that of what is there: a reload shows it again.
  document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
    if (!ctx.select) return;
    ctx.target.querySelector(":scope > [data-refused]")?.remove();
    ctx.select = "[data-refused]";
    ctx.swap = "afterbegin show:top";
    ctx.push = ctx.replace = "false";
  });

  // --- Times that tick: how long ago, and how long something has run --------------------------
  function ago(seconds) {
    if (seconds < 2) return "just now";
    if (seconds < 60) return `${Math.floor(seconds)} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
    return `${Math.floor(seconds / 86400)} d ago`;
  }

  function span(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const two = (number) => String(number).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  }

  function tick() {
    for (const element of document.querySelectorAll("time[data-tick]")) {
      const seconds = (Date.now() - Date.parse(element.dateTime)) / 1000;
      const text = element.dataset.tick === "ago" ? ago(seconds) : span(seconds);
      if (element.textContent !== text) element.textContent = text;
    }
  }
  setInterval(tick, 1000);

  // --- A slider and its number box ------------------------------------------------------------
  document.addEventListener("input", (event) => {
    const box = event.target.closest("[data-weight]");
    if (!box || event.target.closest("[data-lock]")) return;
    for (const other of box.querySelectorAll("input:not([data-lock])")) {
      if (other !== event.target) other.value = event.target.value;
    }
  }, true);

  // --- A locked slice keeps its share of the budget while other weights move --------------------
  function weighted() {
    return [...document.querySelectorAll("[data-weight]")]
      .filter((field) => field.closest("fieldset").querySelector("[data-kind] select").value === "weight")
      .map((field) => ({
        lock: field.querySelector("[data-lock]"),
        inputs: [...field.querySelectorAll("input:not([data-lock])")],
        weight: Math.max(Number(field.querySelector("input.n").value) || 0, 0),
      }));
  }

  function rememberShares() {
    const slices = weighted();
    const whole = slices.reduce((sum, slice) => sum + slice.weight, 0);
    for (const { lock, inputs, weight } of slices) {
      for (const input of inputs) input[input.type === "range" ? "disabled" : "readOnly"] = lock.checked;
      if (!lock.checked) delete lock.dataset.share;
      else if (!lock.dataset.share && whole) lock.dataset.share = weight / whole;
    }
  }

  function keepShares() {
    const slices = weighted();
    const locked = slices.filter((slice) => slice.lock.checked);
    const free = slices.filter((slice) => !slice.lock.checked).reduce((sum, slice) => sum + slice.weight, 0);
    const kept = locked.reduce((sum, slice) => sum + Number(slice.lock.dataset.share), 0);
    if (!locked.length || !free || kept >= 1) return;
    for (const { lock, inputs } of locked) {
      const weight = Number(lock.dataset.share) * free / (1 - kept);
      for (const input of inputs) input.value = Number(weight.toPrecision(6));
    }
  }

  for (const kind of ["focusin", "pointerdown"]) document.addEventListener(kind, rememberShares, true);
  document.addEventListener("change", (event) => { if (event.target.closest("[data-lock]")) rememberShares(); });
  document.addEventListener("input", (event) => {
    if (event.target.closest("[data-weight]") && !event.target.closest("[data-lock]")) keepShares();
  });
  rememberShares();

  // --- A closed slice is known by its name ----------------------------------------------------
  document.addEventListener("input", (event) => {
    const name = event.target.closest("[name^='slice-'][name$='-name']");
    if (name) name.closest("fieldset").querySelector("[data-slice-name]").textContent = name.value;
  });

  // --- What was composed is not lost by a way out ----------------------------------------------
  let unsaved = Boolean(document.querySelector("form[data-unsaved=yes]"));
  for (const kind of ["input", "click"]) {
    document.addEventListener(kind, (event) => {
      if (event.target.closest(kind === "input" ? "form[data-unsaved]" : "form[data-unsaved] [name=change]")) unsaved = true;
    });
  }
  document.addEventListener("submit", () => { unsaved = false; });
  window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

  // --- All or none of a group of boxes --------------------------------------------------------
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-check]");
    if (!button) return;
    const wanted = button.dataset.check === "all";
    const boxes = button.closest("details").querySelectorAll("input[type=checkbox]");
    for (const box of boxes) box.checked = wanted && box.dataset.rows !== "0";
    boxes[0]?.dispatchEvent(new Event("input", { bubbles: true }));
  });

  document.addEventListener("input", (event) => {
    const group = event.target.closest("details[data-picks]");
    if (!group) return;
    const count = group.querySelectorAll("input[type=checkbox]:checked").length;
    group.querySelector("[data-count]").textContent = count ? `${count} chosen` : (group.dataset.unticked ?? "any");
  });

  // --- A tab that was opened in the background waits with its stream until it is looked at --------
  // A browser holds six connections to a server (HTTP/1.1): as many streams keep every other page
  // waiting. htmx closes the stream of a tab that is left, but not of one that was never seen.
  document.addEventListener("htmx:sse:before:connection", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const stream of document.querySelectorAll("[hx-sse\\:connect]")) stream.dispatchEvent(new Event("seen"));
  });

  // --- A stream that broke says so, and so does a login that ended ----------------------------
  function connection(problem) {
    for (const note of document.querySelectorAll("[data-connection]")) {
      note.hidden = note.dataset.connection !== problem;
    }
  }
  document.addEventListener("htmx:sse:error", ({ detail }) => connection(detail.status === 401 ? "login" : "away"));
  document.addEventListener("htmx:sse:after:connection", () => connection("none"));
  document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => connection(ctx.response.status === 401 ? "login" : "none"));
})();

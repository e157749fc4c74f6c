// Keeps the page as it is at the gateway: asks for the whole page every few seconds and puts in what changed. Says when nobody answers any more.
"use strict";
(() => {
  const EVERY_MS = 5000;
  const WAIT_MS = 8000;
  const stale = document.getElementById("stale");
  let answeredAt = Date.now(); // when the page that is shown was made, by the clock of this browser
  let failedSince = 0;
  let why = "";
  let timer = 0;

  // By the clocks of the site, like every time of the page.
  function clock(ms) {
    try {
      return new Date(ms).toLocaleTimeString("en-GB", { timeZone: document.body.dataset.zone });
    } catch {
      return new Date(ms).toLocaleTimeString("en-GB");
    }
  }

  function ago(ms) {
    const s = Math.max(0, Math.round(ms / 1000));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min";
    return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  }

  // Said once when it begins; the numbers move without being read out again.
  function tell() {
    if (!failedSince) {
      stale.replaceChildren();
      document.body.classList.remove("is-stale");
      return;
    }
    if (!stale.firstChild) {
      const since = document.createElement("span");
      const age = document.createElement("span");
      age.setAttribute("aria-live", "off");
      stale.append(since, age);
      since.textContent = "The agent does not answer since " + clock(failedSince) + " (" + why + "). ";
      document.body.classList.add("is-stale");
    }
    stale.lastChild.textContent = "What you see is from " + clock(answeredAt) + ", " + ago(Date.now() - answeredAt) + " ago. Trying again.";
  }

  // What is selected or has the focus stays as it is until it is let go.
  function isInUse(part) {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && (part.contains(selection.anchorNode) || part.contains(selection.focusNode));
    return selects || (part.contains(document.activeElement) && document.activeElement !== document.body);
  }

  function put(part, next) {
    if (part.outerHTML === next.outerHTML || isInUse(part)) return;
    if (part.hasAttribute("role")) { // a live region is kept, so that its change is read out
      part.className = next.className;
      if (part.innerHTML !== next.innerHTML) part.replaceChildren(...next.childNodes);
      return;
    }
    for (const open of part.querySelectorAll("details[open][id]")) {
      const same = next.querySelector("#" + open.id);
      if (same) same.open = true;
    }
    part.replaceWith(next);
  }

  function show(text) {
    const next = new DOMParser().parseFromString(text, "text/html");
    if (!next.getElementById("verdict")) throw new Error("something else answers");
    document.title = next.title;
    for (const found of [...next.querySelectorAll("main > section[id], #verdict, #made")]) {
      const part = document.getElementById(found.id);
      if (part) put(part, document.adoptNode(found));
    }
  }

  async function look() {
    clearTimeout(timer);
    const abort = new AbortController();
    const late = setTimeout(() => abort.abort(), WAIT_MS);
    try {
      const answer = await fetch("/", { signal: abort.signal, cache: "no-store", credentials: "omit" });
      if (!answer.ok) throw new Error("it answers with " + answer.status);
      show(await answer.text());
      answeredAt = Date.now();
      failedSince = 0;
    } catch (error) {
      if (!failedSince) {
        failedSince = Date.now();
        why = error.name === "AbortError" ? "no answer within " + WAIT_MS / 1000 + " s" : error.name === "TypeError" ? "no connection" : error.message;
      }
    } finally {
      clearTimeout(late);
    }
    tell();
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(look, EVERY_MS);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  setInterval(() => { if (failedSince) tell(); }, 1000);
  timer = setTimeout(look, EVERY_MS);
})();

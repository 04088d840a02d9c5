// The live page of a run: what is new comes by websocket, else by polling; the rows are the truth.
"use strict";

(() => {
  const run = document.getElementById("run");
  if (!run) return;
  const state = document.getElementById("link-state");
  const log = document.getElementById("log");
  const list = document.getElementById("log-lines");
  const pill = document.getElementById("new-lines");
  const announcer = document.getElementById("announcer");
  const followButton = document.querySelector("button[data-follow]");
  const wrapButton = document.querySelector("[data-wrap]");
  const copyButton = document.querySelector("[data-copy]");
  const MAX_LINES = 3000;
  const POLL_MS = 5000;
  const DIALS_BEFORE_POLLING = 3;
  const query = run.dataset.query ? `&${run.dataset.query}` : "";

  let head = Number(run.dataset.head);
  let isActive = run.dataset.active === "1";
  // A window in the middle of a log stays where it is; only one at the end grows.
  const grows = run.dataset.follow === "1";
  let isFollowing = grows && isActive && !location.hash.startsWith("#L");
  let unseen = 0;
  let dials = 0;
  let poller = 0;
  let isComplete = false; // it has ended, and all of it is here

  const show = (kind, text) => {
    state.textContent = text;
    state.className = `link-state is-${kind}`;
  };

  const isAtBottom = () => log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  const toBottom = () => { log.scrollTop = log.scrollHeight; };

  const setFollowing = (value) => {
    isFollowing = value;
    followButton.setAttribute("aria-pressed", String(value));
    if (value) { unseen = 0; pill.hidden = true; toBottom(); }
  };

  const addRows = (rows) => {
    if (!grows || rows.to <= head) return;
    head = rows.to;
    if (!rows.count) return;
    list.insertAdjacentHTML("beforeend", rows.html);
    if (isFollowing) {
      while (list.childElementCount > MAX_LINES) list.firstElementChild.remove();
      toBottom();
    } else {
      unseen += rows.count;
      pill.textContent = `${unseen} ${unseen === 1 ? pill.dataset.one : pill.dataset.many}`;
      pill.hidden = false;
    }
  };

  const seenStatus = new Map();
  const announceSteps = () => {
    document.querySelectorAll("[data-phase]").forEach((phase) => {
      const { phase: word, status } = phase.dataset;
      if (seenStatus.has(word) && seenStatus.get(word) !== status) {
        announcer.textContent = `${word}: ${phase.querySelector(".state").textContent.trim()}`;
      }
      seenStatus.set(word, status);
    });
  };

  const setParts = (parts) => {
    Object.entries(parts).forEach(([name, html]) => {
      if (name === "title") { document.title = `${html} · v2vweb`; return; }
      if (name === "active") { setActive(html === "1"); return; }
      const part = run.querySelector(`[data-part="${name}"]`);
      if (!part) return;
      const open = Array.from(part.querySelectorAll("details"), (details) => details.open);
      part.innerHTML = html;
      part.querySelectorAll("details").forEach((details, index) => { details.open = open[index]; });
    });
    const stop = document.getElementById("stop");
    if (stop && run.querySelector("[data-past-stopping]")) stop.hidden = true;
    announceSteps();
    tick();
  };

  const setActive = (value) => {
    isActive = value;
    if (value) return;
    const stop = document.getElementById("stop");
    const retry = document.getElementById("retry");
    if (stop) stop.hidden = true;
    if (retry) retry.hidden = false;
    const isKept = run.querySelector("[data-kept]") !== null;
    run.querySelectorAll(".for-kept").forEach((link) => { link.hidden = !isKept; });
    show("ended", state.dataset.endedText);
  };

  // Elapsed times go on between two pieces of news.
  const clock = (seconds) => {
    const two = (n) => String(n).padStart(2, "0");
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
  };
  const tick = () => run.querySelectorAll("[data-since]").forEach((element) => {
    element.textContent = clock(Math.max(0, Math.floor(Date.now() / 1000 - element.dataset.since)));
  });

  const poll = async () => {
    try {
      const answer = await fetch(`${run.dataset.live}?after=${head}${query}`, { headers: { Accept: "application/json" } });
      if (answer.redirected) { location.reload(); return; } // to the sign-in
      if (!answer.ok) throw new Error(String(answer.status));
      const news = await answer.json();
      addRows(news.rows);
      setParts(news.parts);
      if (isActive) show("poll", state.dataset.pollText);
      if (grows && news.rows.more) { poll(); return; }
      if (isActive) return;
      isComplete = true;
      clearInterval(poller);
    } catch {
      show("saved", `${state.dataset.savedText} ${head}`);
    }
  };

  const dial = () => {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${run.dataset.ws}?after=${head}${query}`);
    socket.addEventListener("message", (event) => {
      dials = 0;
      clearInterval(poller);
      poller = 0;
      if (isActive) show("live", state.dataset.liveText);
      const news = JSON.parse(event.data);
      if (news.type === "rows") addRows(news);
      else setParts(news.parts);
    });
    socket.addEventListener("close", (event) => {
      if (event.code === 4401) { location.reload(); return; }
      if (event.code === 4403 || event.code === 4404 || isComplete) return;
      if (!isActive && dials === 0 && event.code === 1000) return;
      dials += 1;
      if (!poller) show("saved", `${state.dataset.savedText} ${head}`);
      if (dials >= DIALS_BEFORE_POLLING && !poller) {
        poll();
        poller = setInterval(poll, POLL_MS);
      }
      setTimeout(dial, Math.min(15000, 500 * 2 ** Math.min(dials, 5)));
    });
  };

  followButton.hidden = !grows;
  wrapButton.hidden = false;
  copyButton.hidden = !navigator.clipboard; // only on HTTPS and on this machine
  followButton.addEventListener("click", () => setFollowing(!isFollowing));
  pill.addEventListener("click", () => setFollowing(true));
  log.addEventListener("scroll", () => {
    if (isAtBottom()) { if (!isFollowing && grows && unseen) setFollowing(true); } else if (isFollowing) setFollowing(false);
  });
  wrapButton.addEventListener("click", () => {
    const wraps = !log.classList.toggle("no-wrap");
    wrapButton.setAttribute("aria-pressed", String(wraps));
  });
  copyButton.addEventListener("click", () => {
    const text = Array.from(list.children, (line) => line.textContent.replace(/\s+/g, " ").trim()).join("\n");
    navigator.clipboard.writeText(text);
  });
  const earlier = document.querySelector("[data-earlier]");
  if (earlier) {
    earlier.addEventListener("click", async (event) => {
      event.preventDefault();
      const first = Number(list.firstElementChild.id.slice(1));
      const answer = await fetch(`${run.dataset.log}?before=${first}${query}`);
      if (!answer.ok || answer.redirected) { location.href = earlier.href; return; }
      setFollowing(false);
      const height = log.scrollHeight;
      list.insertAdjacentHTML("afterbegin", await answer.text());
      log.scrollTop += log.scrollHeight - height;
      if (list.firstElementChild.id === "L1") earlier.remove();
    });
  }

  announceSteps();
  setFollowing(isFollowing);
  if (!isActive && grows && !location.hash) toBottom();
  setInterval(tick, 1000);
  if (isActive) dial();
  else show("ended", state.dataset.endedText);
})();

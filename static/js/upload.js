// Resumable uploads: one row per file with its rate, the time left, pause, resume and cancel.
"use strict";

(() => {
  const zone = document.getElementById("drop-zone");
  if (!zone || !window.tus || !window.tus.isSupported) return; // the plain form stays
  const words = document.getElementById("upload-words").dataset;
  const list = document.getElementById("transfers");
  const template = document.getElementById("transfer");
  const input = zone.querySelector("input[type=file]");
  const token = zone.querySelector("[name=csrfmiddlewaretoken]").value;
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
  const RATE_SECONDS = 10;

  zone.querySelectorAll("[data-plain-only]").forEach((element) => element.remove());
  zone.querySelectorAll("[data-script-only]").forEach((element) => { element.hidden = false; });

  const size = (bytes) => {
    let unit = 0;
    while (bytes >= 1024 && unit < UNITS.length - 1) { bytes /= 1024; unit += 1; }
    return `${unit ? bytes.toFixed(1) : bytes} ${UNITS[unit]}`;
  };

  const time = (seconds) => {
    const minutes = Math.floor(seconds / 60);
    return minutes ? `${minutes} min` : `${Math.ceil(seconds)} s`;
  };

  const changed = () => document.body.dispatchEvent(new CustomEvent("uploads-changed"));

  function start(file) {
    const row = template.content.firstElementChild.cloneNode(true);
    const part = (name) => row.querySelector(`[data-${name}]`);
    const bar = row.querySelector("progress");
    const samples = [];
    let isTold = false;
    part("name").textContent = file.name;
    list.append(row);

    const say = (state, text) => {
      part("state").textContent = words[state] || state;
      if (text !== undefined) part("numbers").textContent = text;
    };
    const close = (state, text) => {
      say(state, text);
      ["pause", "resume", "cancel"].forEach((name) => part(name).remove());
      changed();
    };

    const upload = new window.tus.Upload(file, {
      endpoint: zone.dataset.tus,
      metadata: { filename: file.name },
      headers: { "X-CSRFToken": token },
      retryDelays: [0, 1000, 2000, 4000, 8000, 15000, 15000, 30000, 30000, 30000],
      removeFingerprintOnSuccess: true,
      onProgress: (sent, total) => {
        const now = performance.now() / 1000;
        samples.push([now, sent]);
        while (samples.length > 2 && now - samples[0][0] > RATE_SECONDS) samples.shift();
        const [since, before] = samples[0];
        const rate = now - since > 1 ? (sent - before) / (now - since) : 0;
        const left = rate > 0
          ? `${size(rate)}/s, ${time((total - sent) / rate * 0.9)}–${time((total - sent) / rate * 1.3)} ${words.left}`
          : words.measuring;
        bar.max = total;
        bar.value = sent;
        say("sending", `${size(sent)} ${words.of} ${size(total)}, ${left}`);
        if (!isTold) { isTold = true; changed(); }
      },
      onShouldRetry: (error) => {
        const status = error.originalResponse ? error.originalResponse.getStatus() : 0;
        const again = status === 0 || status >= 500 || status === 409 || status === 423;
        if (again && status !== 507) say("waiting");
        return again && status !== 507;
      },
      onError: (error) => {
        const answer = error.originalResponse;
        row.classList.add("is-refused");
        close("refused", (answer && answer.getBody()) || error.message);
      },
      onSuccess: () => {
        bar.value = bar.max;
        close("sent", size(file.size));
        setTimeout(() => row.remove(), 4000);
      },
    });

    part("pause").addEventListener("click", () => {
      upload.abort();
      say("paused");
      part("pause").hidden = true;
      part("resume").hidden = false;
      part("resume").focus();
    });
    part("resume").addEventListener("click", () => {
      samples.length = 0;
      upload.start();
      part("resume").hidden = true;
      part("pause").hidden = false;
      part("pause").focus();
    });
    part("cancel").addEventListener("click", () => {
      if (!window.confirm(words.confirm)) return;
      upload.abort(true).then(() => close("cancelled"), () => close("cancelled"));
    });

    say("starting", "");
    upload.findPreviousUploads().then((previous) => {
      if (previous.length) {
        upload.resumeFromPreviousUpload(previous[0]);
        say("continuing", "");
      }
      upload.start();
    });
  }

  const take = (files) => Array.from(files).forEach(start);
  input.addEventListener("change", () => { take(input.files); input.value = ""; });
  zone.addEventListener("submit", (event) => { event.preventDefault(); take(input.files); });
  ["dragenter", "dragover"].forEach((name) => zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.add("is-over");
  }));
  ["dragleave", "drop"].forEach((name) => zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.remove("is-over");
  }));
  zone.addEventListener("drop", (event) => take(event.dataTransfer.files));
  window.addEventListener("beforeunload", (event) => {
    if (list.querySelector("[data-pause]:not([hidden])")) event.preventDefault();
  });
})();

/* Chooses light or dark before the first paint: the stored choice, else what the system prefers. */
"use strict";
(function () {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    let choice = null;
    try { choice = localStorage.getItem("theme"); } catch (error) { /* storage may be turned off */ }
    root.classList.toggle("pf-v6-theme-dark", choice ? choice === "dark" : system.matches);
  }
  root.classList.add("js");
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
})();

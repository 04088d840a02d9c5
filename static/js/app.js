/* The small things every page has: theme button, navigation on small screens, menus, line links. */
"use strict";
(function () {
  const root = document.documentElement;

  const theme = document.querySelector("[data-theme-toggle]");
  if (theme) {
    const show = () => theme.setAttribute("aria-pressed", String(root.classList.contains("pf-v6-theme-dark")));
    theme.hidden = false;
    show();
    theme.addEventListener("click", () => {
      const dark = root.classList.toggle("pf-v6-theme-dark");
      try { localStorage.setItem("theme", dark ? "dark" : "light"); } catch (error) { /* lasts for this page */ }
      show();
    });
  }

  const places = document.getElementById("places");
  const toggle = document.querySelector("[data-nav-toggle]");
  if (places && toggle) {
    const open = (yes) => {
      places.classList.toggle("pf-m-expanded", yes);
      toggle.setAttribute("aria-expanded", String(yes));
    };
    toggle.setAttribute("role", "button");
    open(false);
    toggle.addEventListener("click", (event) => {
      event.preventDefault();
      open(!places.classList.contains("pf-m-expanded"));
      if (places.classList.contains("pf-m-expanded")) places.querySelector("a").focus();
    });
    places.querySelector(".nav-close a").addEventListener("click", (event) => {
      event.preventDefault();
      open(false);
      toggle.focus();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && places.classList.contains("pf-m-expanded")) {
        open(false);
        toggle.focus();
      }
    });
  }

  document.addEventListener("click", (event) => {
    document.querySelectorAll("details[data-menu][open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details[data-menu][open]").forEach((menu) => {
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });

  /* A long list with a search field of its own, such as the packages of a guest. */
  document.querySelectorAll("[data-filter-list]").forEach((list) => {
    const field = list.querySelector("[data-filter-field]");
    field.hidden = false;
    field.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/);
      list.querySelectorAll("li").forEach((item) => {
        const text = item.textContent.toLowerCase();
        item.hidden = !words.every((word) => text.includes(word));
      });
    });
  });

  /* Filters of a list apply as soon as they change; without a script the button does it. */
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit-on-change]")) event.target.form.requestSubmit();
  });
})();

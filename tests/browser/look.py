"""What a browser measures on a page: parts that need scrolling sideways, and words too pale."""

from __future__ import annotations

from typing import Literal

from playwright.sync_api import Page, expect

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("dark", "light")

# Code and logs are as wide as their lines.
_WIDE = """
() => {
  const clipped = (e) => e && (getComputedStyle(e).clipPath !== "none" || clipped(e.parentElement));
  return [...document.querySelectorAll("html, .pf-v6-c-page__main-container, main, main *")]
    .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    .filter((e) => e.matches("html, main") || getComputedStyle(e).overflowX !== "visible")
    .filter((e) => !e.closest("pre, .log") && !clipped(e))
    .map((e) => `${e.tagName}.${e.className} by ${e.scrollWidth - e.clientWidth} px`);
}
"""

# Contrast as WCAG 2.2 counts it, success criterion 1.4.3.  PatternFly paints labels in a way that
# no element tells of.
_PALE = """
() => {
  const channels = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const over = (top, below) => top.rgb.map((v, i) => v * top.a + below[i] * (1 - top.a));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const own = channels(getComputedStyle(element).backgroundColor);
    return own.a === 1 ? own.rgb : over(own, ground(element.parentElement));
  };
  const pale = new Set();
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(":disabled, option, .pf-v6-c-label, .pf-v6-screen-reader")) continue;
    const below = ground(element);
    const pair = [luminance(over(channels(style.color), below)), luminance(below)];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) {
      pale.add(`${contrast.toFixed(1)}: ${texts.currentNode.data.trim().slice(0, 40)}`);
    }
  }
  return [...pale];
}
"""


# Colours fade into each other for as long as the machine takes, some of them after others.
_FADED = """
() => {
  const fading = () => document.getAnimations().filter((a) => a instanceof CSSTransition);
  for (let found = fading(), turn = 0; found.length && turn < 20; found = fading(), turn++) {
    found.forEach((a) => a.finish());
  }
}
"""


def show_scheme(page: Page, scheme: Scheme) -> None:
    """Show the page by day or by night."""
    page.emulate_media(color_scheme=scheme)
    expect(page.locator("html.pf-v6-theme-dark")).to_have_count(int(scheme == "dark"))
    page.evaluate(_FADED)


def too_wide(page: Page) -> list[str]:
    """Return the parts of the page that hold more than they show across."""
    found: list[str] = page.evaluate(_WIDE)
    return found


def too_pale(page: Page) -> list[str]:
    """Return the words that stand out too little from their ground, with their contrast."""
    page.evaluate(_FADED)
    found: list[str] = page.evaluate(_PALE)
    return found

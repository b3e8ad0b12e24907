"use strict";
// Draws the figures in #figures, in the colours that the style sheet has for the reader's light or dark mode.
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Figures name their colours as CSS variables, which SVG attributes do not understand: look each one up.
  function themed(value, style) {
    if (Array.isArray(value)) return value.map((each) => themed(each, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, themed(each, style)]));
    }
    if (value === "inherit") return style.fontFamily;
    const variable = typeof value === "string" && /^var\((--[a-z0-9-]+)\)$/.exec(value);
    return variable ? style.getPropertyValue(variable[1]).trim() : value;
  }

  function draw() {
    const style = getComputedStyle(document.body);
    const config = { responsive: true, displaylogo: false, displayModeBar: false };
    for (const figure of figures) {
      const { data, layout } = themed(figure, style);
      Plotly.react(figure.name, data, layout, config);
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();

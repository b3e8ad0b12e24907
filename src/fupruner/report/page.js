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

// Zooms the drawings by their size, so that moving about is ordinary scrolling: by wheel, finger, keyboard or dragging.
(function () {
  const STEP = 1.25;
  for (const figure of document.querySelectorAll(".network")) {
    const pane = figure.querySelector(".pane");
    const svg = pane.querySelector("svg");
    const natural = { width: svg.viewBox.baseVal.width, height: svg.viewBox.baseVal.height };
    const fitting = () => Math.min(1, (pane.clientWidth - 2) / natural.width);
    let scale = 1;

    function zoom(wanted) {
      const next = Math.min(4, Math.max(0.05, wanted));
      const ratio = next / scale;
      const centre = [pane.scrollLeft + pane.clientWidth / 2, pane.scrollTop + pane.clientHeight / 2];
      scale = next;
      svg.setAttribute("width", natural.width * scale);
      svg.setAttribute("height", natural.height * scale);
      pane.scrollTo(centre[0] * ratio - pane.clientWidth / 2, centre[1] * ratio - pane.clientHeight / 2);
    }

    const whole = () => zoom(Math.min(fitting(), (pane.clientHeight - 2) / natural.height));
    const actions = { in: () => zoom(scale * STEP), out: () => zoom(scale / STEP), fit: whole };
    figure.querySelector(".zoom").addEventListener("click", (event) => actions[event.target.dataset.zoom]?.());
    pane.addEventListener("keydown", (event) => {
      const action = { "+": actions.in, "=": actions.in, "-": actions.out, 0: whole }[event.key];
      if (action && !event.ctrlKey && !event.metaKey) { event.preventDefault(); action(); }
    });
    pane.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(scale * (event.deltaY < 0 ? STEP : 1 / STEP));
    }, { passive: false });
    pane.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && event.buttons === 1) pane.scrollBy(-event.movementX, -event.movementY);
    });
    zoom(Math.max(0.6, fitting()));
    pane.scrollTo((pane.scrollWidth - pane.clientWidth) / 2, 0);
  }
})();

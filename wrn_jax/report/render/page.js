"use strict";
(() => {
  // Tables that are wider than their box say so.
  const showHints = () => {
    for (const table of document.querySelectorAll(".table")) {
      const box = table.querySelector(".box");
      if (box.clientWidth === 0) continue;  // folded away
      const wide = box.scrollWidth > box.clientWidth + 1;
      table.querySelector(".hint").hidden = !wide;
      box.tabIndex = wide || box.scrollHeight > box.clientHeight + 1 ? 0 : -1;  // no stop for the Tab key without need
    }
  };
  addEventListener("resize", showHints);
  for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", showHints);
  showHints();

  // The contents show where the reader is.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const visible = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target.id);
    const current = [...links.keys()].find((name) => visible.has(name));
    if (!current) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(current).setAttribute("aria-current", "true");
  }, { rootMargin: "0px 0px -60% 0px" });
  for (const section of document.querySelectorAll("section")) observer.observe(section);

  const source = document.getElementById("figures");
  if (!source) return;
  const { themes, figures } = JSON.parse(source.textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const hiddenPlaces = new Map();  // by plot: the places of the lines that the reader has hidden

  const themedTrace = (trace, theme, hidden) => {
    const colour = theme.lines[trace.meta.place % theme.lines.length];
    const shown = { ...trace, visible: !hidden.has(trace.meta.place) };
    if (trace.meta.band) return { ...shown, fillcolor: `${colour}2e` };
    return { ...shown, line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
  };

  const themedLayout = (layout, theme, width, height) => {
    const axis = { gridcolor: theme.grid, zerolinecolor: theme.rule, linecolor: theme.quiet, tickcolor: theme.quiet, showline: true, ticks: "outside" };
    const spike = { showspikes: true, spikemode: "across", spikesnap: "hovered data", spikethickness: -1, spikedash: "solid", spikecolor: theme.link };
    return {
      ...layout,
      width,
      height,
      uirevision: "keep",
      showlegend: false,
      paper_bgcolor: theme.page,
      plot_bgcolor: theme.page,
      font: { family: getComputedStyle(document.body).fontFamily, size: width < 600 ? 12 : 13, color: theme.text },
      margin: { l: width < 600 ? 44 : 56, r: 14, t: 46, b: 44 },
      xaxis: { ...axis, ...spike, zeroline: false, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      shapes: layout.shapes.map((shape) => ({ ...shape, line: { ...shape.line, color: theme.quiet } })),
      annotations: layout.annotations.map((note) => ({ ...note, font: { ...note.font, color: theme.quiet } })),
      modebar: { bgcolor: theme.page, color: theme.quiet, activecolor: theme.link },
      hovermode: "x",
      hoverdistance: -1,
      // A finger that moves over a plot scrolls the page; buttons zoom.
      dragmode: touch.matches ? false : "zoom",
    };
  };

  const draw = (div, theme, width, height) => {
    const { data, layout } = figures[div.id];
    const traces = data.map((trace) => themedTrace(trace, theme, hiddenPlaces.get(div.id)));
    return Plotly.react(div, traces, themedLayout(layout, theme, width, height), {
      displaylogo: false,
      displayModeBar: true,
      showTips: false,
      modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    });
  };
  const drawForScreen = (div) => draw(div, themes[dark.matches ? "dark" : "light"], div.clientWidth, div.clientHeight);

  // The legend tells the values of all lines where the reader points, by mouse, finger or keys.
  const addReading = (div) => {
    const figure = div.closest("figure");
    const lines = figures[div.id].data.filter((trace) => !trace.meta.band);
    const texts = lines.map((trace) => new Map(trace.x.map((x, index) => [x, trace.customdata[index]])));
    const places = [...new Set(lines.flatMap((trace) => trace.x))].sort((a, b) => a - b);
    const legend = figure.querySelector(".legend");
    const values = [...legend.querySelectorAll("output")];
    let at = places.length - 1;

    const nearest = (x) => {
      const after = places.findIndex((place) => place >= x);
      if (after < 0) return places.length - 1;
      return after > 0 && x - places[after - 1] < places[after] - x ? after - 1 : after;
    };
    const marks = places.map(() => []);
    for (const item of figure.querySelectorAll(".marks li")) marks[nearest(Number(item.dataset.x))]?.push(item.textContent);

    const show = (index) => {
      at = index;
      legend.querySelector("strong span").textContent = Number(places[at].toPrecision(6));
      legend.querySelector("em").textContent = marks[at].join("; ");
      values.forEach((value, place) => { value.textContent = texts[place].get(places[at]) || "–"; });
    };
    const read = ({ clientX }) => {
      const { left, right } = div.querySelector(".nsewdrag").getBoundingClientRect();
      const [low, high] = div.layout.xaxis.range;
      if (clientX >= left && clientX <= right) show(nearest(low + ((high - low) * (clientX - left)) / (right - left)));
    };
    for (const kind of ["pointermove", "pointerdown"]) div.addEventListener(kind, read);  // a finger that taps does not move

    const move = (by) => {
      show(Math.min(places.length - 1, Math.max(0, at + by)));
      Plotly.Fx.hover(div, { xval: places[at] }, "xy");
      figure.querySelector("[aria-live]").textContent = legend.innerText;
    };
    const zoom = (factor) => {
      const [low, high] = div.layout.xaxis.range;
      const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
      Plotly.relayout(div, { "xaxis.range": [middle - half, middle + half] });
    };
    const actions = {
      ArrowLeft: () => move(-1),
      ArrowRight: () => move(1),
      "+": () => zoom(0.7),
      "-": () => zoom(1 / 0.7),
      0: () => Plotly.relayout(div, { "xaxis.autorange": true, "yaxis.autorange": true }),
    };
    div.addEventListener("keydown", (event) => {
      const action = actions[event.key];
      if (!action || event.target !== div || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      action();
    });

    for (const button of legend.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(shown));
        hiddenPlaces.get(div.id)[shown ? "delete" : "add"](Number(button.dataset.place));
        drawForScreen(div);
      });
    }
  };

  const canvases = [...document.querySelectorAll(".canvas")];
  const redraw = () => canvases.forEach(drawForScreen);
  const start = async () => {
    for (const div of canvases) {
      await new Promise((next) => setTimeout(next));  // the page stays usable meanwhile
      hiddenPlaces.set(div.id, new Set());
      await drawForScreen(div);
      addReading(div);
    }
    let waiting;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(redraw, 100);
    });
    dark.addEventListener("change", redraw);
    touch.addEventListener("change", redraw);
    addEventListener("beforeprint", () => canvases.forEach((div) => draw(div, themes.light, 660, 360)));
    addEventListener("afterprint", redraw);
    document.documentElement.dataset.plots = "drawn";
  };
  start();
})();

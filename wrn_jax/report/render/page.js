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

  // A link into a folded part opens it.
  const folds = [...document.querySelectorAll(".fold")];
  const openTarget = () => {
    const fold = location.hash && document.getElementById(location.hash.slice(1))?.querySelector(":scope > .fold");
    if (fold) fold.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();
  for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(openTarget));
  // Paper cannot be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = folds.filter((fold) => !fold.open);
    for (const fold of folded) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of folded) fold.open = false;
  });

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

  // A name with a line break wherever it would be wider than `room`, after a blank or _ where there is one.
  const pen = document.createElement("canvas").getContext("2d");
  const wrapped = (name, font, room) => {
    pen.font = `${font.size}px ${font.family}`;
    const lines = [""];
    for (const part of name.match(/([^\s_]{0,16}[\s_])|(&\w+;|.){1,16}/g) ?? []) {
      if (lines.at(-1) && pen.measureText(lines.at(-1) + part.trimEnd()).width > room) lines.push("");
      lines.push(lines.pop() + part);
    }
    return lines.join("<br>");
  };

  const themedTrace = (trace, theme, font, room) => {
    const colour = theme.lines[trace.legendgroup % theme.lines.length];
    const name = wrapped(trace.name, font, room);
    return { ...trace, name, fillcolor: `${colour}2e`, line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
  };

  // The names of the lines stand below the plot in as many rows as they need, which only a drawn plot knows.
  const themedLayout = (layout, theme, font, margin, width, height, names) => {
    const axis = { gridcolor: theme.grid, zerolinecolor: theme.rule, linecolor: theme.quiet, tickcolor: theme.quiet, showline: true, ticks: "outside" };
    return {
      ...layout,
      width,
      height: height + names,
      uirevision: "keep",  // what the reader has zoomed and hidden stays when the plot is drawn anew
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", maxheight: 1e5, itemdoubleclick: false },
      paper_bgcolor: theme.page,
      plot_bgcolor: theme.page,
      font: { ...font, color: theme.text },
      margin: { ...margin, b: 54 + names },
      xaxis: { ...axis, zeroline: false, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      modebar: { bgcolor: theme.page, color: theme.quiet, activecolor: theme.link },
      hovermode: layout.hovermode ?? "x unified",
      hoverlabel: { namelength: width < 600 ? 15 : -1, bgcolor: `${theme.raised}dd`, bordercolor: theme.rule, font: { color: theme.text } },
      // A finger that moves over a plot scrolls the page; buttons zoom.
      dragmode: touch.matches ? false : "zoom",
    };
  };

  const draw = (div, theme, width, height) => {
    const { data, layout } = figures[div.id];
    const font = { family: getComputedStyle(document.body).fontFamily, size: width < 700 ? 12 : 13 };
    const margin = { l: width < 600 ? 44 : 56, r: 14, t: 46, autoexpand: false };
    const traces = data.map((trace) => themedTrace(trace, theme, font, width - margin.l - margin.r - 45));  // its line is before it
    if (div.data) Plotly.Fx.unhover(div);  // a label would keep the colours of before
    const react = (names) => Plotly.react(div, traces, themedLayout(layout, theme, font, margin, width, height, names), {
      displaylogo: false,
      displayModeBar: true,
      showTips: false,
      modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    });
    const before = div._fullLayout?.legend?._height ?? 0;
    let drawn = react(before);
    const needed = div._fullLayout.legend._height;
    if (needed !== before) drawn = react(needed);
    return drawn;
  };
  const heightOf = (div) => parseFloat(getComputedStyle(div).minHeight);
  const drawForScreen = (div) => draw(div, themes[dark.matches ? "dark" : "light"], div.clientWidth, heightOf(div));

  const addKeys = (div) => {
    const places = [...new Set(figures[div.id].data.filter((trace) => trace.hovertext).flatMap((trace) => trace.x))].sort((a, b) => a - b);
    const spoken = div.closest("figure").querySelector("[aria-live]");
    let at = places.length - 1;
    const speak = () => {
      spoken.textContent = [...div.querySelectorAll(".hoverlayer text")].map((text) => text.textContent).join("; ");
    };
    const move = (by) => {
      at = Math.min(places.length - 1, Math.max(0, at + by));
      Plotly.Fx.hover(div, { xval: places[at] }, "xy");
      setTimeout(speak, 100);  // plotly draws at most every 50 milliseconds
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
  };

  const canvases = [...document.querySelectorAll(".canvas")];
  const isShown = (div) => !div.closest("details:not([open])");
  const redraw = () => canvases.filter(isShown).forEach(drawForScreen);
  const drawNew = async () => {
    for (const div of canvases.filter((div) => isShown(div) && !div.dataset.ready)) {
      div.dataset.ready = "yes";
      addKeys(div);
      await new Promise((next) => setTimeout(next));  // the page stays usable meanwhile
      await drawForScreen(div);
    }
    document.documentElement.dataset.plots = "drawn";
  };
  const start = async () => {
    // Those of a folded part are drawn when it is opened, anew if they have been: the screen or the theme may have changed.
    for (const fold of folds) {
      fold.addEventListener("toggle", () => {
        if (!fold.open) return;
        [...fold.querySelectorAll(".canvas")].filter((div) => div.data).forEach(drawForScreen);
        drawNew();
      });
    }
    await drawNew();
    let waiting;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(redraw, 100);
    });
    dark.addEventListener("change", redraw);
    touch.addEventListener("change", redraw);
    addEventListener("beforeprint", () => canvases.forEach((div) => draw(div, themes.light, 660, 320)));
    addEventListener("afterprint", redraw);
  };
  start();
})();

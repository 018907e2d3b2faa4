// Charts: a figure is data in <script type="application/json">, drawn by Plotly once it is in view and the page is painted.
// A colour in a figure is the name of a CSS variable ("--series-1"), so light and dark are decided in one place.
(() => {
  "use strict";

  const { nonce, dataset } = document.currentScript;
  const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };

  // Plotly writes its rules into these elements and creates them where they are missing, without a nonce, which a strict
  // Content-Security-Policy refuses. The second id is its bundle's stylesheet for maps: being there is all it must do.
  const STYLE_IDS = [
    "plotly.js-style-global",
    "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53",
  ];

  function reserveStyles() {
    for (const id of STYLE_IDS) {
      if (document.getElementById(id)) continue;
      const style = document.createElement("style");
      style.id = id;
      style.nonce = nonce;
      document.head.append(style);
    }
  }

  let loading;
  function loadPlotly() {
    loading ??= new Promise((resolve, reject) => {
      reserveStyles();
      const script = document.createElement("script");
      script.src = dataset.plotly;
      script.onload = () => resolve(window.Plotly);
      script.onerror = reject;
      document.head.append(script);
    });
    return loading;
  }

  /** The figure with every "--name" replaced by the colour that this element sees. */
  function coloured(value, probe) {
    if (typeof value === "string" && value.startsWith("--")) {
      probe.style.color = `var(${value})`;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(value)) return value.map((each) => coloured(each, probe));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each, probe)]));
    }
    return value;
  }

  function layout(figure, host) {
    const ink = "--ink-2", narrow = host.clientWidth < 480;
    const axis = { gridcolor: "--grid", linecolor: "--line", zeroline: false, tickcolor: "--line", fixedrange: true, automargin: true };
    return {
      ...figure.layout,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 8, t: 12, b: 8 },
      showlegend: false,
      dragmode: false,
      hovermode: "x unified",
      hoverlabel: { bgcolor: "--raised", bordercolor: "--line", font: { color: "--ink", size: 12 } },
      transition: { duration: 0 },
      xaxis: { ...axis, showgrid: false, showspikes: true, spikemode: "across", spikedash: "solid", spikethickness: 1, spikecolor: "--line-strong", nticks: narrow ? 4 : 8, ...figure.layout.xaxis },
      yaxis: { ...axis, nticks: 5, rangemode: "tozero", ...figure.layout.yaxis },
    };
  }

  const figureText = (host) => document.getElementById(host.dataset.figure)?.textContent;
  const drawn = new WeakMap(); // host -> the text of the figure it shows

  async function draw(host) {
    const Plotly = await loadPlotly();
    const text = figureText(host), figure = JSON.parse(text);
    const probe = document.createElement("span");
    host.after(probe);
    const { data, layout: shape } = coloured({ data: figure.data, layout: layout(figure, host) }, probe);
    probe.remove();
    if (!host.hasAttribute("data-keep")) host.replaceChildren();
    host.setAttribute("data-keep", "");
    await Plotly.react(host, data, shape, CONFIG);
    drawn.set(host, text);
  }

  const visible = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      visible.unobserve(target);
      requestAnimationFrame(() => draw(target).catch(() => {})); // without Plotly the sketch stays
    }
  }, { rootMargin: "200px" });

  const hosts = () => document.querySelectorAll("[data-figure]");
  const redraw = () => { for (const host of hosts()) if (drawn.has(host)) draw(host); };
  const redrawMoved = () => { for (const host of hosts()) if (drawn.has(host) && drawn.get(host) !== figureText(host)) draw(host); };
  const watch = () => { for (const host of hosts()) if (!drawn.has(host)) visible.observe(host); };

  // A redraw costs up to half a second on a phone: at most one in 15 s, and the last one is never dropped.
  const REDRAW_MS = 15000;
  let drawnAt = Date.now(), pending;
  function redrawSoon() {
    pending ??= setTimeout(() => {
      pending = null;
      drawnAt = Date.now();
      redrawMoved();
    }, Math.max(0, drawnAt + REDRAW_MS - Date.now()));
  }

  document.addEventListener("htmx:afterSwap", () => { watch(); redrawSoon(); });
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (document.readyState === "complete") watch();
  else addEventListener("load", watch);
})();

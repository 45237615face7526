"use strict";
// Draws each chart from its Vega-Lite spec in place of its static form, as it comes into view. What cannot be drawn
// stays as it is. Expressions are interpreted (ast), so that no text is ever run as code.
(() => {
  const soft = "var(--soft)", ink = "var(--ink)";
  const config = {
    background: "transparent",
    font: '"Segoe UI",Roboto,"DejaVu Sans",sans-serif',
    view: {stroke: "transparent"},
    axis: {labelColor: soft, titleColor: soft, domainColor: soft, tickColor: soft, gridColor: "var(--edge)",
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal"},
    axisY: {titlePadding: 8},
    legend: {labelColor: ink, labelFontSize: 12, symbolStrokeWidth: 2, rowPadding: 3, columnPadding: 12},
    text: {fill: ink, fontSize: 12},
  };

  const tip = document.createElement("div");
  tip.id = "pointed";
  tip.hidden = true;
  document.body.append(tip);
  const tooltip = (handler, event, item, value) => {
    // Each row of data says itself; of what is nearest to the pointer, the row stands one further down.
    const row = value == null || !item ? {} : item.datum.datum || item.datum;
    tip.hidden = !row.said;
    if (tip.hidden) return;
    tip.textContent = row.said;
    const wide = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, wide - tip.offsetWidth - 4))}px`;
    const above = event.clientY + 18 + tip.offsetHeight > window.innerHeight;
    tip.style.top = `${above ? event.clientY - 10 - tip.offsetHeight : event.clientY + 18}px`;
  };

  // Vega stands in the page as a text, and is read where the first chart comes into view: a page opens without it.
  const options = {
    config, tooltip, ast: true, actions: false, renderer: "svg", defaultStyle: false, logLevel: 1,
    loader: {load: () => Promise.reject(new Error("a page loads nothing"))},
  };
  const load = () => {
    const script = document.createElement("script");
    script.textContent = document.getElementById("vega").textContent;
    document.head.append(script);
  };

  const show = async (figure) => {
    if (!window.vegaEmbed) load();
    const live = figure.querySelector(".live");
    live.hidden = false;
    const place = document.createElement("div");  // Vega gives it a role and a name; those of the chart are live's
    place.setAttribute("aria-hidden", "true");
    live.replaceChildren(place);
    try {
      const spec = JSON.parse(figure.querySelector(".spec").textContent);
      await vegaEmbed(place, spec, options);
      figure.classList.add("drawn");
    } catch (error) {
      live.hidden = true;
      console.error(error);
    }
  };

  // One at a time: a page of many charts answers while it draws.
  const waiting = new Set();
  let busy = false;
  const next = async () => {
    const [figure] = waiting;
    if (busy || figure === undefined) return;
    busy = true;
    waiting.delete(figure);
    await show(figure);
    busy = false;
    setTimeout(next);
  };
  const seen = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      if (!isIntersecting) {
        waiting.delete(target);
      } else if (!target.classList.contains("drawn")) {
        waiting.add(target);
      }
    }
    next();
  }, {rootMargin: "400px"});
  const watch = () => {
    for (const spec of document.querySelectorAll("figure > .spec")) seen.observe(spec.parentElement);
  };
  if (document.readyState === "complete") watch();
  else addEventListener("load", () => setTimeout(watch));
  document.getElementById("how").hidden = false;
  addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
})();

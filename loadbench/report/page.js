"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const SVG = "http://www.w3.org/2000/svg";

  // Light and dark: the system's choice, until the reader makes another.
  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  nameTheme();

  // A reader of the page that sees no tooltip hears it here.
  const spoken = document.createElement("div");
  spoken.setAttribute("role", "status");
  spoken.className = "skip";
  document.body.append(spoken);

  function chart(figure) {
    const about = data[figure.id];
    if (!about) return;
    const plot = figure.querySelector(".plot");
    const shown = about.names.map(() => true);
    let key = figure.dataset.drawing, at = -1;
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;

    const drawing = () => plot.querySelector(".drawing > svg");
    const points = () => about.points[key];
    const apply = () => drawing().querySelectorAll(".lb-series").forEach((group, place) => group.classList.toggle("lb-off", !shown[place]));
    const clear = () => { tip.hidden = true; at = -1; plot.querySelectorAll(".lb-cursor, .lb-dot").forEach(part => part.remove()); };

    figure.querySelectorAll(".legend button").forEach(button => {
      const place = Number(button.dataset.series);
      shown[place] = button.getAttribute("aria-pressed") === "true";
      const set = on => { shown[place] = on; button.setAttribute("aria-pressed", String(on)); };
      button.addEventListener("click", () => { set(!shown[place]); clear(); apply(); });
    });
    figure.querySelectorAll(".switch").forEach(button => button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      const axis = button.dataset.axis;
      const has = letter => letter === axis ? on : key.includes(letter);
      key = (has("x") ? "x" : "") + (has("y") ? "y" : "");
      const template = plot.querySelector(`template[data-key="${key}"]`), old = plot.querySelector(".drawing");
      if (!template) return;
      clear();
      const kept = document.createElement("template");
      kept.dataset.key = old.dataset.key;
      kept.content.append(...old.childNodes);
      old.dataset.key = key;
      old.append(template.content);
      template.replaceWith(kept);
      apply();
    }));

    // Where something can be read: each place on the axis of x, or each single point of a scatter chart.
    const stops = () => {
      const found = [];
      points().forEach((line, place) => shown[place] && line.forEach(point => found.push({ x: point[0], y: point[1], at: point[2], lines: [[place, point]] })));
      if (about.scatter) return found;
      found.sort((a, b) => a.x - b.x);
      return found.reduce((merged, stop) => {
        const last = merged[merged.length - 1];
        if (last && Math.abs(last.x - stop.x) < 0.6) last.lines.push(...stop.lines); else merged.push(stop);
        return merged;
      }, []);
    };
    const show = (stop, speak) => {
      const svg = drawing(), box = svg.viewBox.baseVal, scale = svg.clientWidth / box.width || svg.getBoundingClientRect().width / box.width;
      plot.querySelectorAll(".lb-cursor, .lb-dot").forEach(part => part.remove());
      if (!about.scatter) {
        const line = document.createElementNS(SVG, "path");
        line.setAttribute("class", "lb-cursor");
        line.setAttribute("d", `M${stop.x} 8V${box.height - 56}`);
        svg.append(line);
      }
      stop.lines.forEach(([, point]) => {
        const dot = document.createElementNS(SVG, "circle");
        dot.setAttribute("class", "lb-dot");
        dot.setAttribute("cx", point[0]); dot.setAttribute("cy", point[1]); dot.setAttribute("r", 5);
        svg.append(dot);
      });
      const head = document.createElement("b");
      head.textContent = about.scatter ? stop.at : `${stop.at} ${about.x}`;
      const lines = stop.lines.slice(0, 12).map(([place, point]) => {
        const text = document.createElement("span");
        text.textContent = `${about.names[place]}: ${point[3]}`;
        return text;
      });
      tip.replaceChildren(head, ...lines);
      tip.hidden = false;
      plot.append(tip);
      const left = stop.x * scale, wide = tip.offsetWidth, room = plot.clientWidth;
      tip.style.left = `${Math.max(0, left + 14 + wide > room ? Math.min(left - wide - 14, room - wide) : left + 14)}px`;
      const high = Math.min(...stop.lines.map(([, point]) => point[1])) * scale;
      tip.style.top = `${Math.max(0, Math.min(high - 10, plot.clientHeight - tip.offsetHeight))}px`;
      if (speak) spoken.textContent = tip.innerText;
    };
    plot.addEventListener("pointermove", event => {
      const svg = drawing(), box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      const away = stop => Math.abs(stop.x - x) + (about.scatter ? Math.abs(stop.y - y) : 0);
      const found = stops();
      if (found.length) show(found.reduce((best, stop) => away(stop) < away(best) ? stop : best), false);
    });
    plot.addEventListener("pointerleave", clear);
    plot.addEventListener("blur", clear);
    plot.addEventListener("keydown", event => {
      const found = stops(), last = found.length - 1;
      const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") clear();
      if (to === undefined || last < 0) return;
      event.preventDefault();
      at = Math.min(Math.max(to, 0), last);
      show(found[at], true);
    });
    apply();
  }

  // Of alternatives one is in the page; the others wait until they are chosen.
  function choice(part) {
    const select = part.querySelector("select");
    const printed = part.querySelector(":scope > .choose > .printed > b");
    select.addEventListener("change", () => {
      printed.textContent = select.selectedOptions[0].textContent;
      const id = select.value, later = document.getElementById(`${id}-later`);
      if (later) {
        const option = document.createElement("div");
        option.className = "option";
        option.id = id;
        option.append(later.content);
        later.replaceWith(option);
        ready(option);
      }
      part.querySelectorAll(":scope > .option").forEach(option => { option.hidden = option.id !== id; });
    });
  }

  // A table that goes on to the right says so, and fades there: half a number could be read as another one.
  const hint = scroll => {
    const table = scroll.parentElement, wider = scroll.scrollWidth > scroll.clientWidth + 1;
    table.style.setProperty("--tall", `${scroll.clientHeight}px`);
    const more = scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft;
    table.style.setProperty("--fade", `${Math.min(more + 8, scroll.clientWidth > 600 ? 56 : 24)}px`);
    table.classList.toggle("cut", wider && more > 1);
    table.querySelector(".hint").hidden = !wider;
  };
  const sizes = new ResizeObserver(entries => entries.forEach(entry => hint(entry.target)));

  function ready(part) {
    part.querySelectorAll(".chart").forEach(chart);
    part.querySelectorAll(".choice").forEach(choice);
    part.querySelectorAll(".scroll").forEach(scroll => {
      sizes.observe(scroll);
      scroll.addEventListener("scroll", () => hint(scroll), { passive: true });
    });
  }
  ready(document);
  // Tests and people who measure can tell when the page can be used.
  performance.mark("loadbench-ready");
  root.dataset.ready = "true";
})();

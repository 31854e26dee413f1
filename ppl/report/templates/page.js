"use strict";
document.documentElement.classList.add("js");

/* A labelled slider over names, which calls show(index). */
function makeSlider(label, names, show) {
  const box = document.createElement("div");
  const input = document.createElement("input");
  box.className = "slider";
  Object.assign(input, { type: "range", min: 0, max: names.length - 1, step: 1 });
  input.setAttribute("aria-label", label);
  box.append(input);
  const set = (index) => {
    input.value = index;
    input.setAttribute("aria-valuetext", names[index]);
    show(index);
  };
  input.addEventListener("input", () => set(input.valueAsNumber));
  return { box, set, names };
}

for (const gallery of document.querySelectorAll(".gallery")) {
  const sliders = [...gallery.querySelectorAll(".stages")].map((stages) => {
    const figures = [...stages.children];
    const names = figures.map((figure) => figure.querySelector("figcaption").textContent);
    const title = stages.parentElement.querySelector("h3").textContent;
    const slider = makeSlider(`Stage of ${title}`, names, (index) => {
      figures.forEach((figure, place) => { figure.hidden = place !== index; });
    });
    slider.set(Math.max(0, names.indexOf(gallery.dataset.start)));
    stages.before(slider.box);
    return slider;
  });
  if (sliders.length < 2) continue;
  const names = sliders.map((slider) => slider.names).reduce((a, b) => (b.length > a.length ? b : a));
  const shown = document.createElement("output");
  const all = makeSlider("Stage of all images", names, (index) => {
    shown.textContent = names[index];
    for (const slider of sliders) {
      const own = slider.names.indexOf(names[index]);
      if (own >= 0) slider.set(own);
    }
  });
  all.set(Math.max(0, names.indexOf(gallery.dataset.start)));
  all.box.prepend("All images:");
  all.box.append(shown);
  gallery.before(all.box);
}

/* Missing numbers come last in either direction. */
function compareCells(a, b, sign) {
  const [x, y] = [a.dataset.value, b.dataset.value];
  if (x === "" || y === "") return (x === "") - (y === "");
  if (x !== undefined && y !== undefined) return sign * (x - y);
  return sign * a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const [body, heads] = [table.tBodies[0], [...table.tHead.rows[0].cells]];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => compareCells(a.cells[column], b.cells[column], sign)));
    });
  });
}

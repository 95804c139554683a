"use strict";
/* The page: one launch at a time, unpacked when it is first shown. */

const ARRAYS = { Int8Array, Int32Array, Float32Array, Float64Array };

async function unpack(column) {
  const packed = Uint8Array.from(atob(column.packed), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  return column.array === "texts" ? JSON.parse(new TextDecoder().decode(buffer)) : new ARRAYS[column.array](buffer);
}

const launches = JSON.parse(document.getElementById("data").textContent);
const main = document.querySelector("main"), nav = document.querySelector("nav");

async function show(index) {
  document.body.dataset.ready = "";
  [...nav.children].forEach((button, k) => button.setAttribute("aria-pressed", String(k === index)));
  main.textContent = "";
  pictures.clear();
  const launch = launches[index];
  document.title = `${launch.kernel} · nki-sim`;
  add(add(main, "h1"), "code", launch.title);
  const figures = add(main, "div", undefined, "figures");
  for (const [name, value, remark] of launch.totals) {
    const box = add(figures, "div", undefined, "figure");
    add(box, "span", name);
    add(box, "b", value, value.length > 18 ? "long" : "");
    add(box, "span", remark);
  }
  for (const sentence of launch.verdict) add(main, "p", sentence, "verdict");
  for (const note of launch.notes) add(main, "p", "Note: " + note, "note");
  if (launch.timeline) {
    add(main, "h2", "Timeline");
    timeline(add(main, "section"), await columns(launch.timeline));
    if (launch.links) {
      add(main, "h3", "Links");
      table(main, ["link", "carries", "bytes", "of the launch"], launch.links, [1, 2, 3]);
      document.body.dataset.ready = "true";
      return;
    }
    const sides = add(main, "div", undefined, "columns"), left = add(sides, "div"), right = add(sides, "div");
    add(left, "h3", "Engines");
    table(left, ["engine", "instructions", "active", "active time", "idle: waited for"], launch.engines, [1, 2, 3]);
    add(right, "h3", "Busiest lines");
    table(right, ["line", "run", "busy", "waited"], launch.lines, [1, 2, 3]);
    for (const remark of launch.remarks) add(right, "p", remark, "hint");
    if (launch.advice.length) {
      add(main, "h3", "Critical path: the chain of instructions that ends last, by line");
      table(main, ["line", "time", "share", "what to try"], launch.advice, [1, 2]);
    }
    if (launch.dma_rows.length) {
      add(main, "h3", "DMA by the size of descriptor rows");
      table(main, ["rows", "transfers", "rows", "bytes", "of the full rate"], launch.dma_rows, [1, 2, 3, 4]);
    }
  }
  for (const one of launch.memories) memory(add(main, "section"), await columns(one));
  if (!launch.memories.length) add(main, "p", "This kernel allocates nothing in SBUF or PSUM.", "dim");
  document.body.dataset.ready = "true";
}

/* Columns stand in the object itself and in its `uses`; the rest is plain. */
async function columns(data) {
  const found = { ...data };
  await Promise.all(Object.keys(found).map(async key => {
    if (found[key] && found[key].packed !== undefined) found[key] = await unpack(found[key]);
  }));
  if (found.uses) found.uses = await columns(found.uses);
  return found;
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
  pictures.forEach(canvas => canvas.picture.paint());
});
if (launches.length > 1) {
  launches.forEach((launch, k) => {
    const button = add(nav, "button", `${k + 1}. ${launch.kernel}${launch.core}`);
    button.type = "button";
    button.title = launch.title;
    button.addEventListener("click", () => show(k));
  });
} else {
  add(nav, "span", "nki-sim report", "dim");
}
if (launches.length) show(0); else add(main, "p", "No kernel was launched.");

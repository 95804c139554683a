"use strict";
/* The timeline: a row per engine and per DMA transfer in flight. Events that share a pixel are drawn as one,
   as dark as the part of that pixel's time they are busy. */

const ROW = 22;

function timeline(parent, data) {
  const rows = data.labels.length, count = data.start.length;
  const end = new Float64Array(count), busy = new Float64Array(count + 1);
  for (let k = 0; k < count; k++) {
    end[k] = data.start[k] + data.length[k];
    busy[k + 1] = busy[k] + data.length[k];
  }
  const opcodes = new Map();  // busy time by opcode
  for (let k = 0; k < count; k++) {
    const name = data.texts[data.text[k]].opcode;
    opcodes.set(name, (opcodes.get(name) || 0) + data.length[k]);
  }
  const ranked = [...opcodes.keys()].sort((a, b) => opcodes.get(b) - opcodes.get(a));
  const colours = new Map(ranked.map((name, k) => [name, PALETTE[k % PALETTE.length]]));
  const colourOf = data.texts.map(text => colours.get(text.opcode));
  let only = null;  // the opcode to bring out

  function draw(context, view) {
    axisBelow(context, view, "time", timeText);
    for (let row = 0; row < rows; row++) {
      const top = view.top + row * ROW;
      context.globalAlpha = 1;
      context.fillStyle = css("--ink");
      context.textAlign = "right";
      context.fillText(data.labels[row], view.left - 8, top + ROW / 2, view.left - 12);
      context.textAlign = "left";
      context.fillStyle = css("--grid");
      context.fillRect(view.left, top + ROW - 1, view.width, 1);
      drawRow(context, view, top, data.offsets[row], data.offsets[row + 1]);
    }
    for (const item of [view.hover, view.chosen]) {
      if (item === null) continue;
      const row = rowOf(item), x = Math.max(view.left, view.x(data.start[item]));
      const right = Math.min(view.left + view.width, view.x(end[item]));
      context.strokeStyle = css("--ink");
      context.lineWidth = item === view.chosen ? 2 : 1;
      if (right >= x) context.strokeRect(x, view.top + row * ROW + 2, Math.max(1, right - x), ROW - 5);
    }
  }

  function drawRow(context, view, top, low, high) {
    const edge = view.left + view.width, perPixel = (view.to - view.from) / view.width;
    let k = lowerBound(end, view.from, low, high);
    while (k < high && data.start[k] < view.to) {
      const x = view.x(data.start[k]), right = view.x(end[k]);
      const faded = only && data.texts[data.text[k]].opcode !== only;
      context.fillStyle = colourOf[data.text[k]];
      if (right - x >= 1.5) {
        const begin = Math.max(view.left, x), wide = Math.min(edge, right) - begin;
        context.globalAlpha = faded ? 0.15 : 1;
        context.fillRect(begin, top + 3, Math.max(0.75, wide - (wide > 4 ? 1 : 0)), ROW - 7);
        if (wide > 46 && !faded) label(context, data.texts[data.text[k]].opcode, begin, top, wide);
        k++;
        continue;
      }
      const pixel = Math.max(view.left, Math.floor(x)), until = view.atX(pixel + 1);
      const next = Math.max(k + 1, lowerBound(data.start, until, k, high));
      const share = Math.min(1, (busy[next] - busy[k]) / perPixel);
      context.globalAlpha = (faded ? 0.15 : 1) * (0.25 + 0.75 * share);
      context.fillRect(pixel, top + 3, 1, ROW - 7);
      k = next;
    }
    context.globalAlpha = 1;
  }

  function label(context, text, x, top, wide) {
    context.save();
    context.beginPath();
    context.rect(x, top, wide - 3, ROW);
    context.clip();
    context.fillStyle = "#fff";
    context.fillText(text, x + 5, top + ROW / 2 - 0.5);
    context.restore();
  }

  const rowOf = item => {
    let row = 0;
    while (data.offsets[row + 1] <= item) row++;
    return row;
  };

  function find(x, y, view) {
    const row = Math.floor((y - view.top) / ROW);
    if (row < 0 || row >= rows || x < view.left || x > view.left + view.width) return null;
    const at = view.atX(x), slack = 1.5 * (view.to - view.from) / view.width, high = data.offsets[row + 1];
    const k = lowerBound(end, at - slack, data.offsets[row], high);
    return k < high && data.start[k] <= at + slack ? k : null;
  }

  function lines(item) {
    const waited = data.waited[item], start = data.start[item];
    return [
      `${timeText(start)} to ${timeText(end[item])} (${timeText(data.length[item])})`,
      `result visible at ${timeText(start + data.visible[item])}`,
      ...(waited > 0 ? [`waited ${timeText(waited)} for ${data.reasons[data.reason[item]]}`] : []),
    ];
  }

  const hint = add(parent, "div", undefined, "hint");
  keys(hint, HINT);
  if (!data.detailed) add(parent, "p", "This many instructions are shown without their operands.", "hint");
  const shown = picture(parent, {
    height: rows * ROW + 40, left: 168, right: 14, top: 6, bottom: 34, wide: [0, Math.max(data.duration, 1)],
    label: `Timeline of ${number(count)} events on ${rows} rows`,
    draw, find,
    text: item => item === null ? "" : [data.texts[data.text[item]].instruction,
      ...data.texts[data.text[item]].calls.slice(0, 1), ...lines(item)].join("\n"),
    click: item => {
      details.textContent = "";
      if (item === null) return;
      const text = data.texts[data.text[item]];
      add(add(details, "p"), "code", text.instruction);
      for (const line of lines(item)) add(details, "p", line);
      add(details, "p", `event ${number(data.event[item])}, ${data.labels[rowOf(item)]}`, "dim");
      for (const call of text.calls) add(details, "p", call, "dim");
    },
  });
  legend(parent, ranked.slice(0, 14).map(name => ({
    name, colour: colours.get(name), title: `busy ${timeText(opcodes.get(name))}`, key: name })), key => {
    only = key;
    shown.paint();
  });
  const details = add(parent, "div", undefined, "details");
  details.dataset.empty = "Click an event to keep its operands, times and calls here.";
}

/* Buttons of one colour each; pressing one brings out what has it, pressing it again lets go. */
function legend(parent, entries, press) {
  const node = add(parent, "div", undefined, "legend");
  for (const { name, colour, title, key } of entries) {
    const button = add(node, "button");
    button.type = "button";
    button.title = title;
    button.setAttribute("aria-pressed", "false");
    add(button, "i").style.background = colour;
    button.append(name);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") === "false";
      for (const other of node.children) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(on));
      press(on ? key : null);
    });
  }
}

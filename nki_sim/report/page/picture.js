"use strict";
/* What all pictures share: colours, spelling, axes, zoom and pan by wheel, drag and keys, hover and click. */

const PALETTE = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#e15759", "#c9a227", "#9c755f", "#d37295",
                 "#86bc5e", "#5d69b1", "#52bca3", "#cc61b0", "#a5aa99"];
const tip = document.getElementById("tip");
const pictures = new Set();  // those on the page, to be painted again when sizes or colours change

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function add(parent, tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  parent.append(node);
  return node;
}

/* Text in which keys stand between backquotes. */
function keys(parent, text) {
  text.split("`").forEach((part, k) => k % 2 ? add(parent, "kbd", part) : parent.append(part));
}

function table(parent, head, rows, numbers) {
  const node = add(add(parent, "div", undefined, "scroll"), "table");
  const line = add(node, "tr");
  head.forEach((word, k) => add(line, "th", word, numbers.includes(k) ? "number" : ""));
  for (const row of rows) {
    const cells = add(node, "tr");
    row.forEach((cell, k) => add(cells, "td", cell, numbers.includes(k) ? "number" : ""));
  }
  return node;
}

const number = value => Math.round(value).toLocaleString("en-US");

/* Nanoseconds in the unit that reads best; with two decimals, or as many as a `step` of an axis needs. */
function timeText(ns, step) {
  for (const [factor, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "us"]]) {
    if (Math.abs(ns) >= factor) {
      const digits = step === undefined ? 2 : Math.min(6, Math.max(0, Math.ceil(-Math.log10(step / factor) - 1e-9)));
      return (ns / factor).toFixed(digits) + " " + unit;
    }
  }
  return ns.toFixed(step !== undefined && step < 1 ? 2 : 0) + " ns";
}

function sizeText(octets) {
  if (octets < 1024) return number(octets) + " B";
  return (octets / 1024).toFixed(octets % 1024 ? 2 : 0) + " KiB";
}

/* Round steps for about `count` ticks; in powers of two where `binary`. */
function ticks(from, to, count, binary = false) {
  const rough = Math.max((to - from) / Math.max(count, 1), 1e-9);
  let step;
  if (binary) {
    step = 2 ** Math.ceil(Math.log2(rough));
  } else {
    const power = 10 ** Math.floor(Math.log10(rough));
    step = power * [1, 2, 5, 10].find(m => m * power >= rough * 0.999);
  }
  const found = [];
  for (let k = Math.ceil(from / step); k * step <= to; k++) found.push(k * step);
  return { step, values: found };
}

/* The first of the sorted `values[low..high)` that is at least `value`. */
function lowerBound(values, value, low, high) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

/* A canvas with a horizontal axis and, if `tall` is given, a vertical one that can be zoomed too.

   options:
     height          CSS pixels
     left, top, bottom, right  CSS pixels around the plot
     wide            extent of the horizontal axis, [from, to]
     tall            extent of the vertical axis, upward, or nothing
     start           the part of `tall` shown at first
     label           what it shows, for those who cannot see it
     draw(context, view), find(x, y, view) -> item or null, text(item) -> tooltip, click(item or null)
*/
function picture(parent, options) {
  const canvas = add(parent, "canvas");
  canvas.style.height = options.height + "px";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", options.label);
  const context = canvas.getContext("2d");
  const tall = options.tall || [0, 1], start = options.start || tall;
  const view = {
    from: options.wide[0], to: options.wide[1], low: start[0], high: start[1],
    left: options.left, top: options.top, width: 0, height: 0, hover: null, chosen: null, pointer: null, ratio: 1,
  };
  view.x = value => view.left + (value - view.from) / (view.to - view.from) * view.width;
  view.y = value => view.top + (view.high - value) / (view.high - view.low) * view.height;
  view.atX = x => view.from + (x - view.left) / view.width * (view.to - view.from);
  view.atY = y => view.high - (y - view.top) / view.height * (view.high - view.low);
  let drag = null, pending = false;

  function paint() {
    pending = false;
    if (!canvas.clientWidth) return;
    view.ratio = window.devicePixelRatio || 1;
    view.width = canvas.clientWidth - options.left - options.right;
    view.height = options.height - options.top - options.bottom;
    const [w, h] = [Math.round(canvas.clientWidth * view.ratio), Math.round(options.height * view.ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, options.height);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.globalAlpha = 1;
    options.draw(context, view);
    if (view.pointer) {
      context.fillStyle = css("--dim");
      context.globalAlpha = 0.6;
      context.fillRect(view.pointer.x, view.top, 1, view.height);
      context.globalAlpha = 1;
    }
  }

  function repaint() {
    if (!pending) requestAnimationFrame(paint);
    pending = true;
  }

  const clamp = (from, to, [least, most], smallest) => {
    const span = Math.min(Math.max(to - from, smallest), most - least);
    const begin = Math.max(least, Math.min(from, most - span));
    return [begin, begin + span];
  };
  function wide(from, to) {
    [view.from, view.to] = clamp(from, to, options.wide, (options.wide[1] - options.wide[0]) * 1e-7);
    repaint();
  }
  function high(low, to) {
    if (!options.tall) return;
    [view.low, view.high] = clamp(low, to, tall, 16);
    repaint();
  }
  function zoomWide(factor, at = (view.from + view.to) / 2) {
    wide(at - (at - view.from) * factor, at + (view.to - at) * factor);
  }
  function zoomHigh(factor, at = (view.low + view.high) / 2) {
    high(at - (at - view.low) * factor, at + (view.high - at) * factor);
  }
  function reset() {
    wide(...options.wide);
    if (options.tall) high(...start);
  }

  const KEYS = {
    ArrowLeft: () => wide(view.from - (view.to - view.from) / 8, view.to - (view.to - view.from) / 8),
    ArrowRight: () => wide(view.from + (view.to - view.from) / 8, view.to + (view.to - view.from) / 8),
    ArrowUp: () => high(view.low + (view.high - view.low) / 8, view.high + (view.high - view.low) / 8),
    ArrowDown: () => high(view.low - (view.high - view.low) / 8, view.high - (view.high - view.low) / 8),
    "+": () => zoomWide(0.6), "=": () => zoomWide(0.6), "-": () => zoomWide(1 / 0.6),
    "]": () => zoomHigh(0.6), "[": () => zoomHigh(1 / 0.6),
    "0": reset, Home: reset,
    Escape: () => choose(null),
  };
  canvas.addEventListener("keydown", event => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  canvas.addEventListener("wheel", event => {
    if (!(event.ctrlKey || event.metaKey || event.shiftKey || document.activeElement === canvas)) return;
    event.preventDefault();
    const turn = Math.exp((event.deltaY || event.deltaX) * 0.0018);
    if (event.shiftKey) zoomHigh(turn, view.atY(event.offsetY)); else zoomWide(turn, view.atX(event.offsetX));
  }, { passive: false });
  canvas.addEventListener("pointerdown", event => {
    drag = { x: event.offsetX, y: event.offsetY, from: view.from, to: view.to, low: view.low, high: view.high, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", event => {
    const wasClick = drag && !drag.moved;
    drag = null;
    if (wasClick) choose(options.find(event.offsetX, event.offsetY, view));
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("pointerleave", () => {
    tip.style.display = "none";
    view.pointer = view.hover = null;
    repaint();
  });
  canvas.addEventListener("pointermove", event => {
    if (drag) {
      const [dx, dy] = [drag.x - event.offsetX, event.offsetY - drag.y];
      drag.moved = drag.moved || Math.abs(dx) + Math.abs(dy) > 3;
      if (drag.moved) {
        tip.style.display = "none";
        const [sx, sy] = [dx / view.width * (drag.to - drag.from), dy / view.height * (drag.high - drag.low)];
        wide(drag.from + sx, drag.to + sx);
        high(drag.low + sy, drag.high + sy);
      }
      return;
    }
    const inside = event.offsetX >= view.left && event.offsetX <= view.left + view.width;
    view.pointer = inside ? { x: event.offsetX, y: event.offsetY } : null;
    view.hover = options.find(event.offsetX, event.offsetY, view);
    repaint();
    const text = options.text(view.hover, view);
    tip.style.display = text ? "block" : "none";
    if (!text) return;
    tip.textContent = text;
    const [w, h] = [tip.offsetWidth, tip.offsetHeight];
    const right = event.clientX + 16 + w > innerWidth ? event.clientX - w - 12 : event.clientX + 16;
    const below = event.clientY + 16 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 16;
    tip.style.left = Math.max(4, right) + "px";
    tip.style.top = Math.max(4, below) + "px";
  });

  function choose(item) {
    view.chosen = item;
    options.click(item);
    repaint();
  }

  canvas.picture = { view, paint, choose, reset };
  pictures.add(canvas);
  paint();
  return canvas.picture;
}

/* Ticks and labels of the horizontal axis below the plot. */
function axisBelow(context, view, name, spell, whole = false) {
  const count = view.width / 110, most = whole ? Math.max(1, view.to - view.from) : Infinity;
  const found = ticks(view.from, view.to, Math.min(count, most));
  context.textAlign = "center";
  for (const value of found.values) {
    const x = Math.round(view.x(value));
    context.fillStyle = css("--grid");
    context.fillRect(x, view.top, 1, view.height);
    context.fillStyle = css("--dim");
    context.fillText(spell(value, found.step), Math.min(Math.max(x, view.left + 12), view.left + view.width - 24), view.top + view.height + 10);
  }
  context.fillStyle = css("--dim");
  context.textAlign = "right";
  context.fillText(name, view.left + view.width, view.top + view.height + 24);
  context.textAlign = "left";
}

const HINT = "`+` `-` or Ctrl and wheel zoom, drag or `←` `→` move, "
  + "`0` or a double click shows all, a click keeps details below, `Esc` lets go";

addEventListener("resize", () => pictures.forEach(canvas => canvas.picture.paint()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => pictures.forEach(canvas => canvas.picture.paint()));

"use strict";
/* A memory: program order across; above, the bytes held; below, the tensors as boxes at their addresses.
   Boxes go pixel by pixel into a buffer, which a million of them can share. */

const CURVE = 86;  // height of the curve above the map
const STRIPE = 3;  // height of a quadrant's stripes in boxes of tensors that lie side by side

function memory(parent, data) {
  const count = data.first.length, positions = data.usage.length;
  const whole = Math.max(data.capacity, 1.08 * data.top), isOver = data.top > data.capacity;
  const tall = [0, whole];
  const start = [0, Math.min(whole, Math.max(data.top * 1.08, 256))];
  let only = null;  // the line to bring out
  let image = null;

  const weight = new Float64Array(data.groups.length);  // bytes times instructions
  for (let k = 0; k < count; k++) weight[data.group[k]] += (data.high[k] - data.low[k]) * (data.last[k] - data.first[k] + 1);
  const ranked = [...weight.keys()].sort((a, b) => weight[b] - weight[a]);
  const colourOf = new Array(data.groups.length);
  ranked.forEach((group, k) => { colourOf[group] = PALETTE[k % PALETTE.length]; });
  const words = colourOf.map(colour => packed(colour, 255)), faded = colourOf.map(colour => packed(colour, 45));

  function packed(colour, alpha) {  // as a little-endian pixel
    const value = parseInt(colour.slice(1), 16);
    return ((alpha << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  }

  function draw(context, view) {
    const bottom = view.top + view.height;
    axisBelow(context, view, "instruction, in program order", number, true);
    context.fillStyle = css("--dim");
    context.textAlign = "right";
    if (data.bank && view.high - view.low > 2 * data.bank) {
      for (let bank = Math.floor(view.low / data.bank); bank * data.bank < view.high; bank++) {
        const y = view.y((bank + 0.5) * data.bank);
        if (y > view.top + 4 && y < bottom - 4) context.fillText("bank " + bank, view.left - 8, y);
        grid(context, view, bank * data.bank);
      }
    } else {
      for (const value of ticks(view.low, view.high, view.height / 40, true).values) {
        context.fillStyle = css("--dim");
        context.fillText(sizeText(value), view.left - 8, Math.min(view.y(value), bottom - 5));
        grid(context, view, value);
      }
    }
    context.textAlign = "left";
    boxes(context, view);
    labels(context, view);
    for (const item of [view.hover, view.chosen]) if (item !== null) outline(context, view, item);
    curve(context, view);
    if (isOver) {
      const y = Math.round(view.y(data.capacity));
      context.fillStyle = css("--warn");
      if (y >= view.top && y <= bottom) {
        context.fillRect(view.left, y, view.width, 2);
        context.fillText(`${data.name} ends here: ${sizeText(data.capacity)}`, view.left + 4, y - 8);
      }
    }
    const x = view.x(data.peak_at + 0.5);
    if (x >= view.left && x <= view.left + view.width) {
      context.strokeStyle = css("--warn");
      context.lineWidth = 1;
      context.setLineDash([4, 3]);
      context.beginPath();
      context.moveTo(x, view.top - CURVE + 18);
      context.lineTo(x, bottom);
      context.stroke();
      context.setLineDash([]);
      context.fillStyle = css("--warn");
      const text = `peak ${sizeText(data.peak)}`, wide = context.measureText(text).width;
      context.fillText(text, x + 5 + wide > view.left + view.width ? x - wide - 5 : x + 5, view.top - 9);
    }
  }

  function grid(context, view, value) {
    const y = Math.round(view.y(value));
    if (y < view.top || y > view.top + view.height) return;
    context.fillStyle = css("--grid");
    context.fillRect(view.left, y, view.width, 1);
    context.fillStyle = css("--dim");
  }

  /* Whether the row, in pixels from the top, is that of another quadrant: tensors side by side share bytes. */
  function beside(k, row, tall) {
    return data.quadrants[k] !== 15 && tall > 4 * STRIPE && !(data.quadrants[k] >> (Math.floor(row / STRIPE) & 3) & 1);
  }

  function boxes(context, view) {
    const ratio = view.ratio, w = Math.max(1, Math.round(view.width * ratio)), h = Math.max(1, Math.round(view.height * ratio));
    if (!image || image.width !== w || image.height !== h) image = context.createImageData(w, h);
    const pixels = new Uint32Array(image.data.buffer);
    pixels.fill(0);
    const perX = w / (view.to - view.from), perY = h / (view.high - view.low);
    const { first, last, low, high, group } = data;
    for (let k = 0; k < count; k++) {
      if (first[k] > view.to) break;  // sorted by first use
      if (last[k] + 1 < view.from || high[k] < view.low || low[k] > view.high) continue;
      let x0 = Math.floor((first[k] - view.from) * perX), x1 = Math.floor((last[k] + 1 - view.from) * perX);
      let y0 = Math.floor((view.high - high[k]) * perY), y1 = Math.floor((view.high - low[k]) * perY);
      if (x1 - x0 > 3 * ratio) x1 -= 1; else if (x1 <= x0) x1 = x0 + 1;
      if (y1 - y0 > 3 * ratio) y1 -= 1; else if (y1 <= y0) y1 = y0 + 1;
      x0 = Math.max(0, x0); x1 = Math.min(w, x1); y0 = Math.max(0, y0); y1 = Math.min(h, y1);
      const colour = only === null || only === group[k] ? words[group[k]] : faded[group[k]];
      const tall = (high[k] - low[k]) * perY / ratio;
      for (let y = y0; y < y1; y++) if (!beside(k, y / ratio, tall)) pixels.fill(colour, y * w + x0, y * w + x1);
    }
    const layer = boxes.layer || (boxes.layer = document.createElement("canvas"));
    layer.width = w;
    layer.height = h;
    layer.getContext("2d").putImageData(image, 0, 0);
    context.drawImage(layer, view.left, view.top, view.width, view.height);
  }

  function labels(context, view) {
    let drawn = 0;
    context.save();
    context.beginPath();
    context.rect(view.left, view.top, view.width, view.height);
    context.clip();
    context.fillStyle = "#fff";
    for (let k = 0; k < count && drawn < 300; k++) {
      if (data.first[k] > view.to) break;
      if (data.last[k] + 1 < view.from || (only !== null && only !== data.group[k])) continue;
      const x = Math.max(view.left, view.x(data.first[k])), wide = Math.min(view.left + view.width, view.x(data.last[k] + 1)) - x;
      const y = Math.max(view.top, view.y(data.high[k])), deep = Math.min(view.top + view.height, view.y(data.low[k])) - y;
      if (wide < 34 || deep < 12 || context.measureText(data.names[k]).width > wide - 8) continue;
      const lane = data.quadrants[k] !== 15 && deep > 60 ? Math.log2(data.quadrants[k] & -data.quadrants[k]) : 0;
      context.fillText(data.names[k], x + 4, y + Math.min(deep / 2, 10) + 12 * lane);
      drawn++;
    }
    context.restore();
  }

  function outline(context, view, item) {
    context.save();
    context.beginPath();
    context.rect(view.left, view.top, view.width, view.height);
    context.clip();
    const x = view.x(data.first[item]), y = view.y(data.high[item]);
    context.strokeStyle = css("--ink");
    context.lineWidth = item === view.chosen ? 2.5 : 1.5;
    context.strokeRect(x, y, Math.max(2, view.x(data.last[item] + 1) - x), Math.max(2, view.y(data.low[item]) - y));
    context.restore();
  }

  /* Bytes held, or banks in use, against what there is: for each pixel the fullest position in it. */
  function curve(context, view) {
    const top = view.top - CURVE + 18, deep = CURVE - 34, base = top + deep;
    const there = data.banks ? data.capacity / data.bank : data.capacity;
    const held = data.banks ? data.banks.reduce((a, b) => Math.max(a, b), 0) : data.peak;
    const most = isOver ? Math.max(held, there) : data.banks ? there : Math.min(there, 1.25 * held);
    const line = data.banks || data.usage;
    context.fillStyle = css("--bar");
    for (let pixel = 0; pixel < view.width; pixel++) {
      const from = Math.max(0, Math.floor(view.from + pixel / view.width * (view.to - view.from)));
      const to = Math.min(positions, Math.max(from + 1, Math.ceil(view.from + (pixel + 1) / view.width * (view.to - view.from))));
      let held = 0;
      for (let k = from; k < to; k++) if (line[k] > held) held = line[k];
      if (held) context.fillRect(view.left + pixel, base - held / most * deep, 1.2, held / most * deep);
    }
    context.fillStyle = css("--dim");
    context.fillRect(view.left, base, view.width, 1);
    context.globalAlpha = 0.7;
    context.fillRect(view.left, top, view.width, 1);
    context.globalAlpha = 1;
    context.textAlign = "right";
    context.fillText(data.banks ? `${most} banks` : sizeText(Math.round(most)), view.left - 8, top);
    context.fillText("0", view.left - 8, base);
    context.textAlign = "left";
    const limit = most < data.capacity ? `, of ${sizeText(data.capacity)} (beyond this scale)`
      : isOver ? `, of ${sizeText(data.capacity)}` : "";
    context.fillText(data.banks ? "banks in use" : `bytes held in each partition${limit}`, view.left + 4, top - 9);
  }

  function find(x, y, view) {
    if (x < view.left || y < view.top || y > view.top + view.height) return null;
    const at = view.atX(x), octet = view.atY(y);
    const slackX = (view.to - view.from) / view.width, slackY = (view.high - view.low) / view.height;
    let best = null, distance = Infinity;
    for (let k = 0; k < count; k++) {
      if (data.first[k] > at + slackX) break;
      const away = Math.max(0, data.first[k] - at, at - data.last[k] - 1) / slackX
        + Math.max(0, data.low[k] - octet, octet - data.high[k]) / slackY;
      if (away < distance && away <= 1.5) [best, distance] = [k, away];
      if (!away && !beside(k, y - view.top, (data.high[k] - data.low[k]) / slackY)) return k;
    }
    return best;
  }

  function facts(item) {
    const group = data.groups[data.group[item]], size = data.high[item] - data.low[item];
    const bank = data.bank ? `, bank ${Math.floor(data.low[item] / data.bank)}` : "";
    return [
      `${data.names[item]}  ${group.typed}`,
      `${sizeText(size)} per partition at byte ${number(data.low[item])}${bank}, partition ${data.partition[item]}`
        + (data.given[item] ? ", address given" : ""),
      `live from instruction ${number(data.first[item])} to ${number(data.last[item])}`,
      ...(group.place ? [`allocated at ${group.place}`] : []),
    ];
  }

  function text(item, view) {
    if (item !== null) return facts(item).join("\n");
    if (!view.pointer || view.pointer.y > view.top + view.height) return "";
    const at = Math.min(positions - 1, Math.max(0, Math.floor(view.atX(view.pointer.x))));
    const banks = data.banks ? `, ${data.banks[at]} of ${data.capacity / data.bank} banks` : "";
    return `instruction ${number(at)}: ${sizeText(data.usage[at])} of ${sizeText(data.capacity)} held${banks}`;
  }

  function click(item) {
    details.textContent = "";
    if (item === null) return;
    facts(item).forEach((line, k) => k ? add(details, "p", line) : add(add(details, "p"), "code", line));
    for (const call of data.groups[data.group[item]].calls.slice(1)) add(details, "p", "called from " + call, "dim");
    const columns = add(details, "div", undefined, "columns");
    for (const [role, title] of [[1, "Written by"], [0, "Read by"]]) {
      const rows = [];
      for (let k = data.uses.offsets[item]; k < data.uses.offsets[item + 1]; k++) {
        if ((data.uses.role[k] & 1) !== role) continue;
        const [opcode, place] = data.uses.sites[data.uses.role[k] >> 1];
        rows.push([opcode, place, number(data.uses.count[k]), number(data.uses.first[k])]);
      }
      const side = add(columns, "div", undefined, role ? "writers" : "readers");
      add(side, "h3", title);
      if (rows.length) table(side, ["instruction", "line", "times", "first at"], rows, [2, 3]);
      else add(side, "p", "nothing", "dim");
    }
  }

  add(parent, "h2", `${data.name}: ${sizeText(data.peak)} of ${sizeText(data.capacity)} per partition at the peak`);
  const hint = add(parent, "div", undefined, "hint");
  keys(hint, HINT + "; `[` `]` or Shift and wheel zoom addresses");
  const shown = picture(parent, {
    height: 330 + CURVE, left: 84, right: 14, top: CURVE, bottom: 34, wide: [0, Math.max(positions, 1)], tall, start,
    label: `${data.name} over program order: ${number(count)} tensors at their addresses, peak ${sizeText(data.peak)}`,
    draw, find, text, click,
  });
  legend(parent, ranked.slice(0, 14).map(group => ({
    name: `${data.groups[group].name}${data.groups[group].place ? " · " + data.groups[group].place : ""}`,
    colour: colourOf[group], title: data.groups[group].typed, key: group,
  })), key => {
    only = key;
    shown.paint();
  });
  const details = add(parent, "div", undefined, "details");
  details.dataset.empty = "Click a tensor to keep its address, life, writers and readers here.";

  add(parent, "h3", "Held at the peak");
  table(parent, ["tensor", "type", "each", "count", "together", "at byte", "live", "allocated at"], data.held, [2, 3, 4, 5]);
  add(parent, "h3", "Shrink first");
  table(parent, ["tensor", "holds", "peak without", "peak if halved", "how"], data.savings, [1, 2, 3]);
  if (data.shared.length) {
    add(parent, "h3", "Share bytes while both are live");
    table(parent, ["tensor", "with"], data.shared, []);
  }
  for (const tree of data.scopes) {
    const box = add(parent, "details");
    add(box, "summary", `Scopes: ${tree.title.toLowerCase()}`);
    const head = add(add(box, "div", undefined, "scope"), "div", undefined, "leaf dim");
    for (const word of ["scope", "at the peak", "own peak", ""]) add(head, "span", word, word.includes("peak") ? "number" : "");
    for (const scope of tree.inside) scopeNode(box, scope, data.peak || 1);
  }
}

function scopeNode(parent, scope, most) {
  const box = add(parent, scope.inside.length ? "details" : "div", undefined, "scope");
  if (scope.inside.length) box.open = scope.inside.length < 12;
  const line = add(box, scope.inside.length ? "summary" : "div", undefined, scope.inside.length ? "" : "leaf");
  add(line, "code", (scope.inside.length ? "▾ " : "") + `${scope.label} (${number(scope.tensors)})`);
  add(line, "span", sizeText(scope.at), "number");
  add(line, "span", sizeText(scope.own), "number");
  add(line, "meter-bar").style.width = `${Math.min(100, 100 * scope.at / most)}%`;
  for (const inner of scope.inside) scopeNode(box, inner, most);
}

/* Adds to a page that is complete without it: values under the pointer, runs switched on and off,
   smoothing, logarithmic axis, other horizontal axes, sortable tables.

   Data, in <script id="mm-data" type="application/json">:
     geo     [width, height, left, right, top, bottom] of a chart, as report/svg.h draws it
     runs    [{n: name, c: style or -1, res: [steps of resumes], x: axis, tok: [tokens],
             sec: [seconds]}], tok and sec at the steps of axis x
     xs      step axes, each as differences
     charts  {figure id: {sm: smoothing, log: is logarithmic,
              s: [{r: run, x: axis, v: means, lo, hi: band, bad: [indices not finite]}]}} */
'use strict';
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const add = (parent, name, attributes, text = '') => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    node.textContent = text;
    return parent.appendChild(node);
  };
  // What an element holds becomes the label of a button in it.
  const makeButton = (parent, onClick) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...parent.childNodes);
    parent.append(button);
    button.addEventListener('click', () => onClick(button));
    return button;
  };

  // ---- tables -------------------------------------------------------------------------------
  const key = (cell) => {
    const text = cell.dataset.v ?? cell.textContent.trim();
    return [text === '' || text === '–' ? NaN : Number(text), text];
  };
  for (const table of all('table[data-sort]')) {
    const heads = all('thead th', table);
    heads.forEach((head, column) => makeButton(head, () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      for (const other of heads) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort(([[a, s]], [[b, t]]) => {
        if (isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1; // what is missing stays at the end
        const order = isNaN(a) ? s.localeCompare(t) : a - b;
        return down ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    }));
  }

  // A closed fold would not be printed.
  addEventListener('beforeprint', () => {
    for (const fold of all('details:not([open])')) fold.open = fold.dataset.shut = true;
  });
  addEventListener('afterprint', () => {
    for (const fold of all('details[data-shut]')) fold.open = delete fold.dataset.shut && false;
  });
  if (!$('ctl')) return;

  // ---- numbers ------------------------------------------------------------------------------
  const data = JSON.parse($('mm-data').textContent);
  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = data.geo;
  const axes = data.xs.map((steps) => { let at = 0; return steps.map((d) => (at += d)); });
  const short = (v, digits = 6) => {
    const a = Math.abs(v);
    for (const [unit, name] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e4, 'k']])
      if (a >= unit) return +(v / (unit === 1e4 ? 1e3 : unit)).toPrecision(4) + name;
    return a && a < 1e-3 ? String(+v.toPrecision(3)) : String(+v.toPrecision(digits));
  };
  const clock = (s) => {
    const two = (v) => String(Math.floor(v)).padStart(2, '0');
    return s < 60 ? +s.toPrecision(3) + 's'
      : s < 3600 ? Math.floor(s / 60) + 'm' + two(s % 60) + 's'
      : Math.floor(s / 3600) + 'h' + two(s % 3600 / 60) + 'm';
  };
  const ticksLinear = (low, high, wanted) => {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((s) => s * power >= rough * (1 - 1e-9)) * power;
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
      ticks.push(+(i * step).toPrecision(12));
    return ticks;
  };
  const ticksLog = (low, high) => {
    const decades = Math.log10(high / low);
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p += Math.ceil(decades / 7))
      for (const part of decades <= 3 ? [1, 2, 5] : [1]) ticks.push(part * 10 ** p);
    return ticks.filter((tick) => tick >= low && tick <= high);
  };
  // The range, as mm_scale_fit chooses it.
  const fit = (values, log) => {
    const sorted = values.filter((v) => v !== null && (!log || v > 0)).sort((a, b) => a - b);
    const n = sorted.length - 1;
    if (n < 0) return log ? [1, 10] : [0, 1];
    const p02 = sorted[Math.floor(n * .02)];
    const p98 = sorted[Math.floor(n * .98)];
    let [low, high] = [sorted[0], sorted[n]];
    if (log) return [Math.max(low, p02 / 10) / 1.1, Math.min(high, p98 * 10) * 1.1];
    const reach = .6 * (p98 - p02);
    if (reach > 0 && n >= 19) {
      low = Math.max(low, p02 - reach);
      high = Math.min(high, p98 + reach);
    }
    const isFlat = high - low <= Math.abs(high) * 1e-12;
    const pad = isFlat ? Math.abs(high) * .05 || 1 : (high - low) * .04;
    return [!isFlat && low >= 0 && low < high * .2 ? 0 : low - pad, high + pad];
  };

  // ---- drawing ------------------------------------------------------------------------------
  const state = { axis: 'step', smooth: null, log: null, off: new Set() };
  const legend = (r) => document.querySelector(`.legend li[data-r="${r}"]`);
  const charts = Object.entries(data.charts).map(([id, chart]) => {
    const root = $(id).querySelector('svg');
    // The browser would show <title> on top of the values.
    const title = root.querySelector('title');
    root.setAttribute('aria-label', title.textContent);
    root.removeAttribute('aria-labelledby');
    title.remove();
    return { ...chart, figure: $(id), root };
  });

  // Steps of a run on the chosen axis, by way of the run's own map.
  const positions = (run, steps) => {
    if (state.axis === 'step' || run.x === undefined) return steps;
    const from = axes[run.x];
    const to = run[state.axis];
    let i = 1;
    return steps.map((step) => {
      while (i < from.length - 1 && from[i] < step) i++;
      const part = (step - from[i - 1]) / (from[i] - from[i - 1] || 1);
      return Math.max(0, to[i - 1] + part * (to[i] - to[i - 1]));
    });
  };
  const smoothed = (values, weight) => {
    let sum = 0;
    let norm = 0;
    return values.map((v) => {
      if (v === null) return null;
      sum = weight * sum + (1 - weight) * v;
      norm = weight * norm + (1 - weight);
      return sum / norm;
    });
  };

  const draw = (chart) => {
    const { root } = chart;
    const width = Math.min(WIDTH, Math.max(280, root.clientWidth || WIDTH));
    const [x0, x1, y0, y1] = [LEFT, width - RIGHT, HEIGHT - BOTTOM, TOP];
    root.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    root.dataset.fit = '';
    const log = state.log ?? chart.log;
    const shown = chart.s.map((s) => ({ ...s, run: data.runs[s.r] }))
      .filter((s) => !state.off.has(s.run.c < 0 ? 'x' : String(s.r)))
      .sort((a, b) => (a.run.c < 0 ? 0 : 1) - (b.run.c < 0 ? 0 : 1));
    for (const s of shown) s.xs = positions(s.run, axes[s.x]);
    const [low, high] = fit(shown.flatMap((s) => s.v), log);
    const ends = shown.flatMap((s) => [s.xs[0], s.xs[s.xs.length - 1]]);
    let [left, right] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
    if (left === right) left -= 1;
    const X = (v) => x0 + (v - left) / (right - left) * (x1 - x0);
    const Y = (v) => {
      const part = !log ? (v - low) / (high - low)
        : v > 0 ? Math.log(v / low) / Math.log(high / low) : -9;
      return Math.max(-3000, Math.min(3000, y0 + part * (y1 - y0)));
    };
    chart.view = { shown, X, left, right, width, x0, x1, y0, y1 };

    const [ax, plot, marks] = ['.ax', '.pl', '.mk'].map((name) => root.querySelector(name));
    for (const group of [ax, plot, marks]) group.replaceChildren();
    let grid = '';
    for (const tick of log ? ticksLog(low, high) : ticksLinear(low, high, 5)) {
      grid += `M${x0} ${Y(tick)}H${x1}`;
      add(ax, 'text', { x: x0 - 7, y: Y(tick) + 4, 'text-anchor': 'end' }, short(tick));
    }
    add(ax, 'path', { class: 'grid', d: grid });
    let axis = `M${x0} ${y0}H${x1}`;
    for (const tick of ticksLinear(left, right, width < 420 ? 4 : 5)) {
      axis += `M${X(tick)} ${y0}v4`;
      const isEnd = X(tick) > x1 - 12;
      const place = { x: isEnd ? x1 : X(tick), y: y0 + 17 };
      add(ax, 'text', { ...place, 'text-anchor': isEnd ? 'end' : 'middle' },
        state.axis === 'sec' ? clock(tick) : short(tick));
    }
    add(ax, 'path', { class: 'axis', d: axis });
    add(ax, 'text', { x: x1, y: y0 + 31, 'text-anchor': 'end' },
      { step: 'step', tok: 'tokens', sec: 'time since the start' }[state.axis]);
    root.querySelector('clipPath rect').setAttribute('width', x1 - x0);

    const weight = chart.sm ? state.smooth ?? chart.sm : 0;
    for (const s of shown) {
      const isGrey = s.run.c < 0;
      const name = (isGrey ? 'sx' : 's' + s.run.c) + (s.p ? ' p1' : '');
      const line = isGrey ? s.v : smoothed(s.v, weight);
      const point = (i, y) => `${X(s.xs[i]).toFixed(1)} ${Y(y).toFixed(1)}`;
      const path = (values) => values.map((v, i) => v === null ? ''
        : (i && values[i - 1] !== null ? 'L' : 'M') + point(i, v)).join('');
      const mark = (kind, d, x, y) =>
        add(marks, 'path', { class: kind, d, transform: `translate(${x} ${y})` });
      if (s.hi && !isGrey && !s.p) {
        const keep = [...s.hi.keys()].filter((i) => s.hi[i] !== null);
        const rim = keep.map((i) => point(i, s.hi[i]))
          .concat(keep.reverse().map((i) => point(i, s.lo[i])));
        add(plot, 'path', { class: 'band ' + name, d: `M${rim.join('L')}z` });
      }
      if (weight && !isGrey) add(plot, 'path', { class: 'raw ' + name, d: path(s.v) });
      add(plot, 'path', { class: 'ln ' + name, d: path(line) });
      // One mark where a stretch of trouble begins.
      for (const i of s.bad ?? [])
        if (!s.bad.includes(i - 1)) mark('bad', 'M-4-4l8 8m0-8l-8 8', X(s.xs[i]), y1 + 6);
      if (isGrey) continue;
      (s.hi ?? s.v).forEach((v, i, values) => {
        if (i && v > high && !(values[i - 1] > high))
          mark('m ' + name, 'M0-4l4 6h-8z', X(s.xs[i]), y1 + 4);
      });
      if (s.p) continue;
      for (const x of positions(s.run, s.run.res ?? []).map(X)) {
        add(marks, 'path', { class: 'res ' + name, d: `M${x} ${y1}V${y0}` });
        mark('m ' + name, 'M-3.5 0l7-4v8z', x, y0 - 6);
      }
      const last = line.findLastIndex((v) => v !== null && v >= low && v <= high);
      const shape = legend(s.r)?.querySelector('.m');
      if (shape && last >= 0)
        mark('m ' + name, shape.getAttribute('d'), X(s.xs[last]), Y(line[last]));
    }
  };
  // The picture drawn in C stays while nothing else is asked for and it fits.
  const drawAll = () => {
    hide();
    const isAsked = state.axis !== 'step' || state.smooth !== null || state.log !== null;
    for (const chart of charts) {
      const isNarrow = chart.root.clientWidth < WIDTH * .8;
      if (isAsked || state.off.size || chart.view || isNarrow) draw(chart);
    }
  };

  // ---- values under the pointer -------------------------------------------------------------
  const box = document.createElement('div');
  box.className = 'tip-box';
  box.hidden = true;
  let cross = null;
  const hide = () => { box.hidden = true; cross?.remove(); };
  const show = (chart, x) => {
    const { shown, X, x0, x1, y0, y1, width } = chart.view;
    hide();
    chart.at = x;
    const found = [];
    for (const s of shown) {
      if (s.run.c < 0) continue;
      let i = s.xs.findIndex((at) => at >= x);
      if (i < 0 && x > s.xs[s.xs.length - 1] * 1.02) continue; // the run ended before
      if (i < 0) i = s.xs.length - 1;
      if (i > 0 && x - s.xs[i - 1] < s.xs[i] - x) i--;
      if (s.v[i] !== null || s.bad?.includes(i)) found.push([s, i]);
    }
    if (!found.length) return;
    found.sort(([s, i], [t, j]) => (s.v[i] ?? Infinity) - (t.v[j] ?? Infinity));
    const table = document.createElement('table');
    table.createCaption().textContent = state.axis === 'sec' ? clock(x)
      : `${state.axis === 'tok' ? 'tokens' : 'step'} ${Math.round(x).toLocaleString('en')}`;
    for (const [s, i] of found) {
      const row = table.insertRow();
      row.insertCell().append(legend(s.r)?.querySelector('svg').cloneNode(true) ?? '');
      row.insertCell().textContent = s.run.n + (chart.parts ? ', ' + chart.parts[s.p ?? 0] : '');
      row.insertCell().textContent = s.v[i] === null ? 'not finite' : short(s.v[i], 4);
      row.insertCell().textContent =
        s.hi && s.hi[i] > s.lo[i] ? `${short(s.lo[i], 4)} to ${short(s.hi[i], 4)}` : '';
    }
    cross = add(chart.root, 'path', { class: 'cross', d: `M${X(x)} ${y0}V${y1}` });
    box.replaceChildren(table);
    chart.figure.append(box);
    box.hidden = false;
    const at = X(x) * chart.root.clientWidth / width;
    const isLeft = X(x) < (x0 + x1) / 2;
    box.style.left = isLeft ? at + 14 + 'px' : 'auto';
    box.style.right = isLeft ? 'auto' : chart.figure.clientWidth - at + 14 + 'px';
    const above = (element) => element.getBoundingClientRect().top;
    box.style.top = above(chart.root) - above(chart.figure) + 8 + 'px';
  };
  for (const chart of charts) {
    const { root } = chart;
    const move = (x) => {
      const { left, right } = chart.view;
      show(chart, Math.min(right, Math.max(left, x)));
    };
    root.addEventListener('pointermove', (event) => {
      if (!chart.view) draw(chart);
      const { x0, x1, left, right, width } = chart.view;
      const area = root.getBoundingClientRect();
      const at = (event.clientX - area.left) / area.width * width;
      move(left + (at - x0) / (x1 - x0) * (right - left));
    });
    root.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') hide();
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      if (!chart.view) draw(chart);
      const { left, right } = chart.view;
      move((chart.at ?? right) + step * (right - left) / 50);
    });
    root.tabIndex = 0;
    root.addEventListener('pointerleave', hide);
    root.addEventListener('blur', hide);
  }

  // ---- controls -----------------------------------------------------------------------------
  for (const item of all('.legend li[data-r]')) {
    const toggle = makeButton(item, () => {
      const off = !state.off.delete(item.dataset.r);
      if (off) state.off.add(item.dataset.r);
      toggle.setAttribute('aria-pressed', String(!off));
      charts.forEach(draw);
    });
    toggle.setAttribute('aria-pressed', 'true');
  }
  $('cx').closest('label').hidden = !data.runs.some((run) => run.tok);
  const control = (id, change) => $(id).addEventListener('input', () => {
    change($(id));
    drawAll();
  });
  control('cx', (input) => { state.axis = input.value; });
  control('cl', (input) => { state.log = input.checked; });
  control('cs', (input) => {
    state.smooth = Number(input.value);
    $('co').textContent = state.smooth.toFixed(2);
  });
  $('ctl').hidden = false;
  for (const fold of all('#curves details')) fold.addEventListener('toggle', drawAll);
  let wait;
  addEventListener('resize', () => { clearTimeout(wait); wait = setTimeout(drawAll, 120); });
  drawAll();
})();

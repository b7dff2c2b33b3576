// The charts: uPlot on the curves' own points. Rebuilt when the colours change, and for print.

const CHARTS = new Map(); // element id → uPlot
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4]];
const ink = (i) => colour("s" + (i % 6));
const HEIGHT = 320;
const LEFT = { size: 48 };

function axis(label, more = {}) {
  return {
    label, labelSize: 18, size: 36, labelFont: "12px system-ui, sans-serif", font: "12px system-ui, sans-serif",
    stroke: colour("ink"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid"), width: 1 },
    labelGap: 0, ...more,
  };
}

const powers = (u, ticks) => ticks.map((v) => { // uPlot gives null for those between
  if (v === null) return "";
  const power = Math.log10(v);
  return Math.abs(power - Math.round(power)) > 1e-9 ? "" : power > -0.5 ? String(10 ** Math.round(power)) : "1e" + Math.round(power);
});

function line(label, i, more = {}) {
  return {
    label, stroke: ink(i), width: 2, dash: DASHES[i % 6], spanGaps: true, points: { show: false },
    value: (u, v) => (v === null || v === undefined ? "–" : v.toFixed(4)), ...more,
  };
}

// The nearest point of each series, where another series has a point at this x and it has none.
function nearest(u, series, index) {
  const values = u.data[series];
  for (let step = 0; step < values.length; step++) {
    for (const at of [index - step, index + step]) if (values[at] !== null && values[at] !== undefined) return at;
  }
  return index;
}

function draw(id, options, data, said) {
  const place = byId(id);
  if (place === null) return null;
  CHARTS.get(id)?.destroy();
  const chart = new uPlot({
    width: Math.max(260, place.clientWidth), height: HEIGHT, padding: [12, 14, 0, 0],
    cursor: { dataIdx: nearest, drag: { x: true, y: false }, points: { size: 8 } }, legend: { live: true, markers: { width: 3, dash: (u, i) => (u.series[i].dash?.length ? (u.series[i].dash[0] > 3 ? "dashed" : "dotted") : "solid") } }, ...options,
  }, data, place);
  CHARTS.set(id, chart);
  const root = chart.root;
  root.tabIndex = 0;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", said + ". Arrow keys move along the curve.");
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    moveTo(chart, (chart.cursor.idx ?? (step > 0 ? -1 : data[0].length)) + step);
  });
  return chart;
}

function moveTo(chart, index) {
  const xs = chart.data[0];
  const at = Math.min(xs.length - 1, Math.max(0, index));
  const known = chart.data.slice(1).map((column) => column[nearest(chart, chart.data.indexOf(column), at)]);
  const y = known.find((v) => v !== null && v !== undefined) ?? 0;
  chart.setCursor({ left: chart.valToPos(xs[at], "x"), top: chart.valToPos(y, chart.series[1].scale) });
}

function marks(list, below = false) { // vertical lines with a word each, right of the line or left of it
  return (u) => {
    const { ctx } = u, ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    let line = 0;
    for (const { x, text, i } of list) {
      if (x === null || x < u.scales.x.min || x > u.scales.x.max) continue;
      const left = Math.round(u.valToPos(x, "x", true));
      ctx.strokeStyle = ctx.fillStyle = i === undefined ? colour("quiet") : ink(i);
      ctx.lineWidth = ratio; ctx.setLineDash([4 * ratio, 3 * ratio]);
      ctx.beginPath(); ctx.moveTo(left, u.bbox.top); ctx.lineTo(left, u.bbox.top + u.bbox.height); ctx.stroke();
      const wide = ctx.measureText(text).width + 16 * ratio;
      const fits = left + wide < u.bbox.left + u.bbox.width;
      ctx.textAlign = fits ? "left" : "right"; ctx.textBaseline = "top";
      const down = (4 + 14 * (line++ % 8)) * ratio;
      ctx.fillText(text, left + (fits ? 5 : -5) * ratio, below ? u.bbox.top + u.bbox.height - down - 14 * ratio : u.bbox.top + down);
    }
    ctx.restore();
  };
}

function bars(list, key) { // 95 % intervals at the operating points
  return (u) => {
    const { ctx } = u, ratio = devicePixelRatio;
    ctx.save();
    for (const { points, i } of list) {
      ctx.strokeStyle = ctx.fillStyle = ink(i); ctx.lineWidth = 1.5 * ratio; ctx.setLineDash([]);
      for (const point of points) {
        const value = key === "tar" ? point.tar : 1 - point.tar;
        if (point.tar === null || !(point.far > 0) || (key !== "tar" && value <= 0)) continue;
        const x = u.valToPos(point.far, "x", true) + (i - (list.length - 1) / 2) * 5 * ratio;
        const floor = u.scales.y.min;
        const at = (v) => u.valToPos(Math.max(v, floor), "y", true);
        ctx.beginPath(); ctx.arc(x, at(value), 3 * ratio, 0, 7); ctx.fill();
        if (!point.ci95) continue;
        const [low, high] = key === "tar" ? point.ci95 : [1 - point.ci95[1], 1 - point.ci95[0]];
        ctx.beginPath();
        for (const end of [low, high]) { ctx.moveTo(x - 4 * ratio, at(end)); ctx.lineTo(x + 4 * ratio, at(end)); }
        ctx.moveTo(x, at(low)); ctx.lineTo(x, at(high)); ctx.stroke();
      }
    }
    ctx.restore();
  };
}

const curvesOf = (block) => DATA.curves.map((c, i) => ({ ...c, i })).filter((c) => c[block]);

function rocs(block, name) {
  const found = curvesOf(block).filter((c) => c[block].roc.far);
  if (!found.length) return;
  const least = Math.max(1e-9, Math.min(...found.map((c) => 1 / (c[block].impostor_pairs || 1e6))));
  const points = found.map((c) => ({ points: c[block].points, i: c.i }));
  const x = { label: "FAR", value: (u, v) => (v === null ? "–" : v.toExponential(2)) };
  const scale = { time: false, distr: 3, range: () => [10 ** Math.floor(Math.log10(least) + 1e-9), 1] };
  const tables = (key) => found.map((c) => {
    const { far } = c[block].roc, ys = c[block].roc[key], table = new Map();
    far.forEach((f, k) => table.set(Math.max(f, least / 2), ys[k])); // the last is the highest at this FAR
    const rows = [...table].filter(([, y]) => key === "tar" || y > 0).sort((a, b) => a[0] - b[0]);
    return [rows.map((r) => r[0]), rows.map((r) => r[1])];
  });
  draw(name + "roc", {
    scales: { x: scale, y: { range: [0, 1.02] } }, axes: [axis("FAR (log)", { values: powers }), axis("TAR", LEFT)],
    series: [x, ...found.map((c) => line(c.label, c.i))], hooks: { draw: [bars(points, "tar")] },
  }, joined(tables("tar")), "ROC: true accept rate over false accept rate");
  const rows = tables("frr");
  const lowest = Math.min(...rows.flatMap((t) => t[1]), 0.1);
  draw(name + "det", {
    scales: { x: scale, y: { distr: 3, range: () => [10 ** Math.floor(Math.log10(lowest)), 1] } },
    axes: [axis("FAR (log)", { values: powers }), axis("FRR (log)", { values: powers, ...LEFT })],
    series: [x, ...found.map((c) => line(c.label, c.i))], hooks: { draw: [bars(points, "frr")] },
  }, joined(rows), "DET: false reject rate over false accept rate");
}

function banded(id, block, x, y, options, said) { // one line a score, with its band where it has one
  const found = curvesOf(block);
  if (!found.length) return;
  const tables = [], series = [options.x], bands = [];
  for (const c of found) {
    const columns = c[block];
    tables.push([columns[x], columns[y]]);
    series.push(line(c.label, c.i));
    if (!columns.low || !columns.high) continue;
    const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true, class: "band" };
    tables[tables.length - 1].push(columns.high, columns.low);
    series.push({ ...edge, label: "high" }, { ...edge, label: "low" });
    bands.push({ series: [series.length - 2, series.length - 1], fill: ink(c.i) + "26" });
  }
  const chart = draw(id, { scales: options.scales, axes: options.axes, series, bands }, joined(tables), said);
  hideBands(chart);
}

function hideBands(chart) { // the ends of a band are in the tables; the legend names the lines
  chart.root.querySelectorAll(".u-series.band").forEach((row) => row.remove());
}

function histogram() {
  curvesOf("verification").filter((c) => c.verification.histogram.edges).forEach((c) => {
    const { edges, genuine_share: genuine, impostor_share: impostor } = c.verification.histogram;
    const filled = (label, i, more) => line(label, i, { paths: uPlot.paths.stepped({ align: 1 }), fill: ink(i) + "40",
      dash: [], value: (u, v) => (v === null ? "–" : percent(v)), ...more });
    const seen = new Set(), lines = [];
    for (const p of c.verification.points) if (p.threshold !== null && !seen.has(p.threshold)) {
      seen.add(p.threshold);
      lines.push({ x: p.threshold, text: "FAR " + p.target_far });
    }
    if (c.verification.eer.threshold !== null) lines.push({ x: c.verification.eer.threshold, text: "EER" });
    draw("histogram-" + c.i, {
      scales: { x: { time: false, range: [edges[0], edges[edges.length - 1]] }, y: { range: (u, low, high) => [0, high * 1.15] } },
      axes: [axis("score (cosine)"), axis("share of pairs", { values: (u, t) => t.map((v) => Math.round(1000 * v) / 10 + " %"), size: 56 })],
      series: [{ label: "score", value: (u, v) => (v === null ? "–" : v.toFixed(3)) }, filled("impostor", 1), filled("genuine", 0)],
      hooks: { draw: [marks(lines)] },
    }, [edges, [...impostor, 0], [...genuine, 0]], "Histogram of genuine and impostor scores, " + c.label);
  });
}

function spaced(u, xs) { // the first, and those that have room for their names
  const room = 42 * (xs[xs.length - 1] - xs[0]) / Math.max(1, u.bbox.width / devicePixelRatio);
  const found = [];
  for (const x of xs) if (!found.length || x - found[found.length - 1] >= room) found.push(x);
  return found;
}

function sweeps() {
  DATA.sweeps.forEach((sweep, n) => {
    const known = sweep.thresholds.filter((t) => t !== null);
    const step = known.length > 1 ? Math.max(0.02, known[1] - known[0]) : 0.1;
    const none = (known.length ? known[0] : 0) - step;
    const xs = sweep.thresholds.map((t) => t ?? none);
    const name = (v) => (Math.abs(v - none) < 1e-9 ? "none" : String(Math.round(v * 1000) / 1000));
    const series = [{ label: "threshold", value: (u, v) => (v === null ? "–" : name(v)) }];
    const columns = [xs], i0 = sweep.figures.length;
    sweep.figures.forEach((figure, i) => {
      series.push(line(figure.label, i, { points: { show: true, size: 5 } }));
      columns.push(figure.values);
    });
    series.push(line("faces dropped", 5, { scale: "dropped", dash: [2, 3], value: (u, v) => (v === null || v === undefined ? "–" : percent(v)) }));
    columns.push(sweep.dropped);
    const axes = [
      axis("threshold (cosine)", { splits: (u) => spaced(u, xs), values: (u, t) => t.map(name) }),
      axis("mAP, TAR", LEFT),
      axis("faces dropped", { ...LEFT, scale: "dropped", side: 1, grid: { show: false }, values: (u, t) => t.map((v) => Math.round(100 * v) + " %") }),
    ];
    const scales = { x: { time: false, range: [none - step / 2, Math.max(...xs) + step / 2] }, y: { range: [0, 1.02] }, dropped: { range: [0, 1.02] } };
    let tables = [columns];
    for (const [j, reference] of sweep.references.entries()) { // the paper's, on an axis of its own
      series.push(line(reference.label, i0 + j, { scale: "paper", width: 0, dash: [], stroke: colour("ink"), points: { show: true, size: 9, stroke: colour("ink"), fill: colour(j ? "paper" : "ink") } }));
      tables.push([reference.thresholds.map((t) => t ?? none), reference.values]);
    }
    if (sweep.references.length) {
      axes.push(axis("TAR @ FAR 1e-4, published", { scale: "paper", side: 1, grid: { show: false }, size: 56 }));
      scales.paper = { range: [0.55, 0.6] };
    }
    const chosen = sweep.chosen === undefined ? [] : [{ x: sweep.chosen ?? none, text: "chosen" }];
    const chart = draw("sweep-" + n, { scales, axes, series, hooks: { draw: [marks(chosen, true)] } },
      tables.length > 1 ? joined(tables) : columns, "Scores and share of faces dropped over the threshold");
    if (chart === null) return;
    const rows = document.querySelectorAll(`#sweep-table-${n} tbody tr`);
    const choose = (k, scroll) => rows.forEach((row, at) => {
      row.classList.toggle("chosen", at === k);
      if (at === k && scroll) row.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
    const clicked = () => {
      const x = chart.data[0][chart.cursor.idx];
      const at = xs.findIndex((v) => v === x);
      if (at >= 0) choose(at, true);
    };
    chart.over.addEventListener("click", clicked);
    chart.root.addEventListener("keydown", (event) => { if (event.key === "Enter") clicked(); });
    rows.forEach((row, at) => { row.querySelector("button").onclick = () => { choose(at, false); moveTo(chart, chart.data[0].indexOf(xs[at])); }; });
  });
}

function attempt(drawing, ...given) { // a chart that cannot be drawn takes nothing else with it
  try { drawing(...given); } catch (error) { console.warn("a chart could not be drawn: " + error); }
}

const UNIT = { y: { range: [0, 1.02] } };

function precisionRecall() {
  banded("pr", "precision_recall", "recall", "precision", {
    x: { label: "recall", value: (u, v) => short(v) || "–" }, scales: { x: { time: false, range: [0, 1] }, ...UNIT },
    axes: [axis("recall"), axis("precision", LEFT)],
  }, "Precision over recall of retrieval");
}

function cmc() {
  const low = (u, least) => [Math.max(0, Math.floor(least * 10 - 0.5) / 10), 1.01];
  banded("cmc", "cmc", "rank", "value", {
    x: { label: "rank", value: (u, v) => String(v ?? "–") }, scales: { x: { time: false }, y: { range: low } },
    axes: [axis("rank", { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }), axis("found within rank", LEFT)],
  }, "CMC: share of probes found within a rank");
}

function drawAll() {
  attempt(rocs, "verification", "");
  attempt(rocs, "cross_verification", "cross-");
  for (const drawing of [precisionRecall, cmc, histogram, sweeps]) attempt(drawing);
}

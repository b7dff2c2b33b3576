// Frames: the clips that matter as contact sheets, one clip in a dialog; the table of all clips.

const TILE = DATA.tile, COLUMNS = DATA.sprite_columns;
const KIND = (cluster) => (cluster === 0 ? "kept" : cluster === 1 ? "second" : "dropped");
const SAID = { kept: "kept", dropped: "dropped", second: "dropped, second cluster" };

function facesOf(run, row) { return DATA.runs[run].faces.find((f) => f.row === row); }
function clipName(run, row) { return DATA.runs[run].clips.clip_id[row] || "(no name)"; }

function counted(faces) {
  const kept = faces.clusters.filter((c) => c === 0).length;
  const shown = faces.clusters.length, of = faces.of > shown ? ` of ${faces.of}` : "";
  return `${shown}${of} faces shown: ${kept} kept, ${shown - kept} dropped`;
}

async function sheet(canvas, run, faces) { // dropped faces framed, the second cluster in two colours
  const n = faces.clusters.length, per = Math.min(COLUMNS, Math.max(n, 5));
  const cell = TILE + 12, lines = Math.ceil(n / per);
  canvas.width = per * cell; canvas.height = lines * cell;
  const ctx = canvas.getContext("2d"), image = await sprite(run, faces.row);
  faces.clusters.forEach((cluster, k) => {
    const x = (k % per) * cell, y = Math.floor(k / per) * cell;
    if (image) ctx.drawImage(image, (k % COLUMNS) * TILE, Math.floor(k / COLUMNS) * TILE, TILE, TILE, x + 6, y + 6, TILE, TILE);
    else { ctx.fillStyle = colour("line"); ctx.fillRect(x + 6, y + 6, TILE, TILE); }
    if (cluster === 0) return;
    ctx.strokeStyle = colour("drop"); ctx.lineWidth = 4;
    ctx.strokeRect(x + 3, y + 3, cell - 6, cell - 6);
    if (cluster !== 1) return;
    ctx.strokeStyle = colour("second"); ctx.lineWidth = 3;
    ctx.strokeRect(x + 7.5, y + 7.5, cell - 15, cell - 15);
  });
}

function facts(run, row) {
  const { clips } = DATA.runs[run], parts = [clips.identity[row] || "nobody known", clips.split[row]];
  if (clips.kept) parts.push(`${clips.kept[row]} of ${clips.faces[row]} kept`);
  if (clips.ap[row] !== null) parts.push(`AP of the identity ${rate(clips.ap[row])}`);
  if (clips.lowest_similarity && clips.lowest_similarity[row] !== null) parts.push(`lowest similarity ${short(clips.lowest_similarity[row])}`);
  if (clips.second_share && clips.second_share[row]) parts.push(`second cluster ${percent(clips.second_share[row])} of the first`);
  if (clips.still_share && clips.still_share[row]) parts.push(`one picture in ${percent(clips.still_share[row])} of the samples`);
  return parts.filter(Boolean).join(" · ");
}

function tags(run, row) {
  const names = DATA.runs[run].reasons[row] || DATA.runs[run].clips.flags[row];
  return el("ul", { class: "tags" }, ...names.filter((n) => DATA.reasons[n]).map((n) => el("li", {}, DATA.reasons[n])));
}

function card(run, row) {
  const faces = facesOf(run, row);
  const canvas = el("canvas", { role: "img", "aria-label": counted(faces) });
  sheet(canvas, run, faces);
  const shown = tags(run, row);
  return el("article", { class: "card" },
    el("h3", {}, el("button", { class: "link", type: "button", onclick: () => openClip(run, row) }, clipName(run, row))),
    el("p", { class: "quiet" }, facts(run, row)), ...(shown.children.length ? [shown] : []), canvas);
}

const ORDERS = { // name → what is sorted by, rising
  telling: null,
  ap: (c, r) => c.ap[r] ?? 2,
  lowest: (c, r) => c.lowest_similarity?.[r] ?? 2,
  second: (c, r) => -(c.second_share?.[r] ?? -1),
  kept: (c, r) => c.kept?.[r] ?? c.faces[r],
  identity: (c, r) => c.identity[r],
  clip: (c, r) => c.clip_id[r],
};
const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
const AT_ONCE = 12;

function frames() {
  const place = byId("frames-cards");
  if (place === null) return;
  let shown = AT_ONCE;
  const values = () => ["run", "reason", "text", "order"].map((name) => byId("frames-" + name)?.value ?? "0");
  const list = (more) => {
    if (!more) shown = AT_ONCE;
    const [runText, reason, text, order] = values(), run = Number(runText), { clips, faces, reasons } = DATA.runs[run];
    const wanted = text.trim().toLowerCase(), key = ORDERS[order];
    let rows = faces.map((f) => f.row).filter((r) => (!reason || (reasons[r] || []).includes(reason)) &&
      (!wanted || clips.identity[r].toLowerCase().includes(wanted) || clips.clip_id[r].toLowerCase().includes(wanted)));
    if (key) rows = rows.map((r) => [key(clips, r), r]).sort((a, b) => compare(a[0], b[0]) || a[1] - b[1]).map((p) => p[1]);
    const first = more ? place.children.length : 0;
    if (!more) place.replaceChildren();
    place.append(...rows.slice(first, shown).map((r) => card(run, r)));
    byId("frames-count").textContent = `${Math.min(shown, rows.length)} of ${rows.length} clips`;
    byId("frames-more").hidden = shown >= rows.length;
  };
  for (const name of ["run", "reason", "text", "order"]) byId("frames-" + name)?.addEventListener("input", () => list(false));
  byId("frames-more").onclick = () => { shown += AT_ONCE; list(true); };
  window.redrawFrames = () => list(false);
  list(false);
}

function pairTables() {
  for (const button of document.querySelectorAll("button[data-clip]")) {
    const [run, row] = button.dataset.clip.split(",").map(Number);
    if (facesOf(run, row)) button.onclick = () => openClip(run, row);
    else button.replaceWith(button.textContent);
  }
}

function matrix(faces) {
  const n = faces.clusters.length, bytes = bytesOf(faces.matrix);
  const canvas = el("canvas", { class: "matrix", width: n, height: n, role: "img", "aria-label": `Similarities of ${n} faces to one another, in cluster order` });
  const ctx = canvas.getContext("2d"), image = ctx.createImageData(n, n);
  for (let k = 0; k < n * n; k++) { // from dark (0 and below) over blue and green to yellow (1): cividis
    const v = bytes[k] === 255 ? null : Math.max(0, (bytes[k] - 127) / 127);
    const [r, g, b] = v === null ? [128, 0, 0] : [v < 0.5 ? v * 2 * 124 : 124 + (v - 0.5) * 2 * 130, 34 + v * 198, v < 0.5 ? 78 + v * 2 * 42 : 120 - (v - 0.5) * 2 * 64];
    image.data.set([r, g, b, 255], 4 * k);
  }
  ctx.putImageData(image, 0, 0);
  return canvas;
}

async function openClip(run, row) {
  const dialog = byId("clip"), faces = facesOf(run, row), { clips } = DATA.runs[run];
  const image = await sprite(run, row);
  const items = faces.clusters.map((cluster, k) => {
    const kind = KIND(cluster), cosine = faces.similarities[k];
    const face = el("span", { class: "face" });
    if (image) {
      const picture = el("img", { src: image.src, alt: "", width: image.naturalWidth, height: image.naturalHeight });
      picture.style.left = -(k % COLUMNS) * TILE + "px";
      picture.style.top = -Math.floor(k / COLUMNS) * TILE + "px";
      face.append(picture);
    }
    return el("li", { class: kind }, face, faces.captions[k], el("br"), (cluster < 0 ? "unusable" : `cluster ${cluster}`) + (cosine === null ? "" : ", " + short(cosine)), el("br"), kind === "kept" ? "" : SAID[kind]);
  });
  const groups = [...new Set(faces.order.map((k) => faces.clusters[k]))];
  dialog.replaceChildren(
    el("button", { class: "close", type: "button", onclick: () => dialog.close() }, "Close"),
    el("h2", { id: "clip-title" }, clipName(run, row)), el("p", { class: "quiet" }, facts(run, row)), tags(run, row),
    el("p", { class: "small" }, counted(faces) + ". In time order; cosine to the clip's descriptor."),
    el("ol", { class: "faces" }, ...items),
    el("div", { class: "pair" },
      el("figure", {}, el("figcaption", {}, el("b", {}, "Similarity to the descriptor, in time order")), el("div", { id: "clip-chart", class: "chart" })),
      el("figure", {}, el("figcaption", {}, el("b", {}, "Similarities in cluster order"), el("br"), `dark: 0 and below, yellow: 1; clusters ${groups.map((c) => (c < 0 ? "unusable" : c)).join(", ")}`), matrix(faces))));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const xs = faces.clusters.map((_, k) => k + 1);
  const of = (test) => faces.similarities.map((v, k) => (test(faces.clusters[k]) ? v : null));
  const dots = (label, name, size, fill) => ({ label, stroke: colour(name), width: 0, spanGaps: true, points: { show: true, size, fill: fill ? colour(name) : colour("paper"), width: 2 }, value: (u, v) => (v === null || v === undefined ? "–" : v.toFixed(3)) });
  CHARTS.delete("clip-chart");
  draw("clip-chart", {
    scales: { x: { time: false, range: [0.5, xs.length + 0.5] }, y: { range: (u, low) => [Math.min(0, low ?? 0), 1.02] } },
    axes: [axis("face, in time order", { incrs: [1, 2, 5, 10] }), axis("cosine", LEFT)], height: 260,
    series: [{ label: "face", value: (u, v) => (v === null ? "–" : `${v}, ${faces.captions[v - 1]}`) }, dots("kept", "s2", 8, true), dots("dropped", "drop", 9, false), dots("second cluster", "second", 11, false)],
    cursor: { drag: { x: false, y: false } },
  }, [xs, of((c) => c === 0), of((c) => c > 1 || c < 0), of((c) => c === 1)], "Similarity of each face to the clip's descriptor");
}

const PAGE = 50;
function clipTable() {
  const body = document.querySelector("#clips-table tbody");
  if (body === null) return;
  const heads = [...document.querySelectorAll("#clips-table th[data-column]")];
  let sort = null, falling = false, page = 0;
  const pick = (name) => byId("clips-" + name)?.value ?? "";
  const show = () => {
    const run = Number(pick("run") || 0), { clips } = DATA.runs[run];
    const text = pick("text").trim().toLowerCase(), flag = pick("flag"), state = pick("state"), split = pick("split");
    let rows = clips.clip_id.map((_, r) => r).filter((r) => (!state || (state === "failed" ? clips.state[r] !== "ok" : clips.state[r] === state)) &&
      (!split || clips.split[r] === split) && (!flag || clips.flags[r].includes(flag)) &&
      (!text || [clips.clip_id[r], clips.identity[r], clips.message[r]].some((v) => v.toLowerCase().includes(text))));
    if (sort) {
      const column = clips[sort] || [], value = (r) => (sort === "flags" ? clips.flags[r].join() : column[r]);
      const lacks = (v) => v === null || v === undefined || v === "";
      rows.sort((a, b) => { // what lacks comes last, whichever way
        const x = value(a), y = value(b);
        if (lacks(x) || lacks(y)) return lacks(x) - lacks(y) || a - b;
        return (falling ? -1 : 1) * compare(x, y) || a - b;
      });
    }
    page = Math.max(0, Math.min(page, Math.ceil(rows.length / PAGE) - 1));
    const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
    body.replaceChildren(...shown.map((r) => el("tr", {}, ...heads.map((head) => cell(run, r, head.dataset.column, head.className)))));
    byId("clips-count").textContent = rows.length ? `${page * PAGE + 1} to ${page * PAGE + shown.length} of ${rows.length} clips` : "no clip";
    byId("clips-back").disabled = page === 0;
    byId("clips-on").disabled = (page + 1) * PAGE >= rows.length;
  };
  const cell = (run, r, name, kind) => {
    const { clips } = DATA.runs[run], value = clips[name]?.[r];
    if (name === "clip_id" && facesOf(run, r)) return el("td", {}, el("button", { class: "link", type: "button", onclick: () => openClip(run, r) }, clipName(run, r)));
    if (name === "flags") return el("td", {}, value.join(", "));
    if (typeof value === "number" && !["frames", "faces", "kept", "dropped", "clusters"].includes(name)) return el("td", { class: kind }, name === "ap" ? rate(value) : short(value));
    return el("td", { class: name === "message" && value ? "long" : kind }, value === null || value === undefined ? "" : String(value));
  };
  for (const head of heads) head.querySelector("button").onclick = () => {
    falling = sort === head.dataset.column ? !falling : false;
    sort = head.dataset.column; page = 0;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    show();
  };
  for (const name of ["run", "text", "flag", "state", "split"]) byId("clips-" + name)?.addEventListener("input", () => { page = 0; show(); });
  byId("clips-back").onclick = () => { page--; show(); };
  byId("clips-on").onclick = () => { page++; show(); };
  show();
}

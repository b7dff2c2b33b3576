// Start: draw what is there; again when the colours or the width change, and for print.

drawAll();
frames();
pairTables();
clipTable();

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  for (const [id, chart] of CHARTS) {
    const place = byId(id);
    if (place !== null) chart.setSize({ width: Math.max(260, place.clientWidth), height: chart.height });
  }
});
const redraw = () => { drawAll(); window.redrawFrames?.(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
matchMedia("print").addEventListener("change", redraw);
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
document.body.dataset.ready = "true";

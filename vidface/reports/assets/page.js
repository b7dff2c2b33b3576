"use strict";
// What charts, frames and clips share: the data, elements, colours. All text is set as text.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) made.append(child);
  return made;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const rate = (value) => (value === null || value === undefined ? "n/a" : value.toFixed(4));
const percent = (value) => (value === null || value === undefined ? "n/a" : (100 * value).toFixed(1) + " %");
const short = (value) => (value === null || value === undefined ? "" : value.toFixed(2));

const joined = (tables) => uPlot.join(tables); // on their x

function bytesOf(base64) {
  const text = atob(base64);
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

const sprites = new Map(); // "run-row" → promise of an image
function sprite(run, row) {
  const key = `${run}-${row}`;
  if (!sprites.has(key)) {
    const block = byId("sprite-" + key);
    sprites.set(key, block === null ? Promise.resolve(null) : new Promise((done) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = () => done(null);
      image.src = URL.createObjectURL(new Blob([bytesOf(block.textContent)], { type: "image/webp" }));
    }));
  }
  return sprites.get(key);
}

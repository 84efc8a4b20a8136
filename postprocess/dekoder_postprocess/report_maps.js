// SPDX-License-Identifier: Apache-2.0
// Attention maps out of the page's text, and their colours.
"use strict";

/// Every float16 as a number, by its bits.
const halfValues = (() => {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; ++bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 0) values[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) values[bits] = fraction ? NaN : sign * Infinity;
    else values[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
})();

/// The maps (layer, head, query, key) of one run, probe and step: lower triangles of n x n, as float16 bits.
class HeadMaps {
  constructor(bits, heads, n) {
    Object.assign(this, { bits, heads, n, size: (n * (n + 1)) / 2 });
  }
  /// Weight of key k for query q, k <= q, in the map at those places of the two axes.
  weight(layer, head, q, k) {
    return halfValues[this.bits[(layer * this.heads + head) * this.size + (q * (q + 1)) / 2 + k]];
  }
}

/// The bytes that the text of an element stands for; `what` they are, for the message.
async function decodeBytes(element, what) {
  const text = atob(element.textContent.trim());
  let bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  if (element.dataset.encoding === "deflate") {
    if (typeof DecompressionStream === "undefined")
      throw new Error(`This browser cannot unpack the ${what} (it has no DecompressionStream). Any browser since 2023 can.`);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  }
  return bytes;
}

async function decodeBits(element) {
  const bytes = await decodeBytes(element, "maps");
  const count = bytes.length / 2, bits = new Uint16Array(count);
  for (let i = 0; i < count; ++i) bits[i] = bytes[i] | (bytes[count + i] << 8);
  return bits;
}

/// Unpacked maps, the latest forty of them kept.
const mapStore = {
  kept: new Map(),
  has: (run, probe, step) => document.getElementById(`map-${run}-${probe}-${step}`) !== null,
  load(run, probe, step, heads, n) {
    const id = `map-${run}-${probe}-${step}`;
    let promise = this.kept.get(id);
    if (promise) this.kept.delete(id);
    else promise = decodeBits(document.getElementById(id)).then((bits) => new HeadMaps(bits, heads, n));
    this.kept.set(id, promise);
    if (this.kept.size > 40) this.kept.delete(this.kept.keys().next().value);
    return promise;
  },
};

/// sRGB bytes of a colour in OKLCH (B. Ottosson, "A perceptual color space for image processing", 2020).
function oklch(lightness, chroma, degrees) {
  const a = chroma * Math.cos((degrees * Math.PI) / 180), b = chroma * Math.sin((degrees * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s].map((linear) => {
    const x = Math.min(1, Math.max(0, linear));
    return Math.round(255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055));
  });
}

/// Weight 0..1: lightness rises evenly from dark violet over blue and green to yellow, so order shows without hue.
const weightRamp = Array.from({ length: 256 }, (_, i) => {
  const x = i / 255;
  return [...oklch(0.26 + 0.68 * x, 0.1 + 0.03 * Math.sin(Math.PI * x) + 0.07 * x ** 3, 305 - 197 * x), 255];
});
/// Difference -1..1: blue below, orange above; the page shows through where there is none.
const differenceRamp = Array.from({ length: 511 }, (_, i) => {
  const x = (i - 255) / 255;
  return [...(x < 0 ? oklch(0.55, 0.17, 255) : oklch(0.65, 0.19, 45)), Math.round(255 * Math.abs(x) ** 0.75)];
});

const notANumber = [255, 0, 255, 255];

/// How values become places on a ramp; `largest` is the largest magnitude of the row.
const colourScales = {
  root: (value) => Math.sign(value) * Math.sqrt(Math.abs(value)),
  linear: (value) => value,
  row: (value, largest) => (largest > 0 ? value / largest : 0),
};
const scaleTicks = {
  root: [0, 0.01, 0.1, 0.25, 0.5, 1],
  linear: [0, 0.25, 0.5, 0.75, 1],
  row: [0, 0.25, 0.5, 0.75, 1],
};

function rampColour(value, largest, scale, signed) {
  const place = colourScales[scale](value, largest);
  if (Number.isNaN(place)) return notANumber;
  if (signed) return differenceRamp[Math.max(0, Math.min(510, Math.round(255 + 255 * place)))];
  return weightRamp[Math.max(0, Math.min(255, Math.round(255 * place)))];
}

/// Paints n x n cells, one pixel each; at(q, k) is asked for k <= q, the rest stays transparent.
function paintMap(canvas, n, at, scale, signed) {
  canvas.width = canvas.height = n;
  const context = canvas.getContext("2d"), image = context.createImageData(n, n);
  const row = new Float64Array(n);
  for (let q = 0; q < n; ++q) {
    let largest = 0;
    for (let k = 0; k <= q; ++k) row[k] = at(q, k), largest = Math.max(largest, Math.abs(row[k]));
    for (let k = 0; k <= q; ++k) image.data.set(rampColour(row[k], largest, scale, signed), (q * n + k) * 4);
  }
  context.putImageData(image, 0, 0);
}

/// A colour bar with its ticks, as an element.
function colourBar(label, scale, signed) {
  const bar = make("div", { class: "bar" });
  make("span", { class: "bar-name" }, bar, label);
  const box = make("div", { class: "bar-box" }, bar);
  const canvas = make("canvas", { width: signed ? 511 : 256, height: 1, "aria-hidden": "true" }, box);
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, 1);
  (signed ? differenceRamp : weightRamp).forEach((colour, i) => image.data.set(colour, i * 4));
  context.putImageData(image, 0, 0);
  const values = signed ? [...scaleTicks[scale].slice(1).map((v) => -v).reverse(), ...scaleTicks[scale]] : scaleTicks[scale];
  for (const value of values) {
    if (signed && ![0, 0.1, 0.5, 1].includes(Math.abs(value))) continue;
    const place = colourScales[scale](value, 1);
    const text = String(value).replace("-", "\u2212");
    make("span", { class: "bar-tick", style: `left:${100 * (signed ? (place + 1) / 2 : place)}%` }, box, text);
  }
  return bar;
}

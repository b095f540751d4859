// The page's three charts on bare canvases: axes with units, lines, and nothing that animates by
// itself. Each draws what it is given and keeps no data.

const FONT = "12px system-ui, sans-serif";
const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const MONTHS = { "04": "Apr", "07": "Jul", "10": "Oct" };

/** A canvas in device pixels with axes laid over it; x and y are [from, to]. */
class Plot {
  constructor(canvas, { x, y, unit, log = false }) {
    const { clientWidth: width, clientHeight: height } = canvas;
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(canvas);
    this.colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.c = canvas.getContext("2d");
    this.c.scale(ratio, ratio);
    this.c.font = FONT;
    Object.assign(this, { x, y, unit, log });
    this.box = { left: 40, top: 26, right: width - 8, bottom: height - 20 };
  }

  px(x) {
    const { left, right } = this.box;
    return left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (right - left);
  }

  py(y) {
    const { top, bottom } = this.box;
    const [from, to, value] = this.log ? [...this.y, y].map(Math.log10) : [...this.y, y];
    return bottom - Math.min(Math.max((value - from) / (to - from), 0), 1) * (bottom - top);
  }

  band(from, to, name) {
    const { left, top, right, bottom } = this.box;
    const [a, b] = [Math.max(this.px(from), left), Math.min(this.px(to), right)];
    if (b <= a) return;
    this.c.fillStyle = this.colour(name);
    this.c.fillRect(a, top, b - a, bottom - top);
  }

  axes(xTicks, yTicks) {
    const { c } = this;
    const { left, top, right, bottom } = this.box;
    c.strokeStyle = this.colour("grid");
    c.fillStyle = this.colour("quiet");
    c.lineWidth = 1;
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (const [value, label] of yTicks) {
      const at = Math.round(this.py(value)) + 0.5;
      this.segment(left, at, right, at);
      c.fillText(label, left - 6, at);
    }
    c.textAlign = "center";
    c.textBaseline = "top";
    for (const [value, label] of xTicks) {
      const at = Math.round(this.px(value)) + 0.5;
      if (at < left || at > right) continue;
      this.segment(at, bottom, at, bottom + 4);
      if (at <= right - 6) c.fillText(label, at, bottom + 6);
    }
    c.textAlign = "left";
    c.fillText(this.unit, 2, 2);
  }

  segment(x0, y0, x1, y1) {
    this.c.beginPath();
    this.c.moveTo(x0, y0);
    this.c.lineTo(x1, y1);
    this.c.stroke();
  }

  /** A line through values[from..to), value k at x = k + shift. */
  line(values, from, to, name, width, shift = 0) {
    const { c } = this;
    const { left, top, right, bottom } = this.box;
    c.save();
    c.beginPath();
    c.rect(left, top - 4, right - left + 4, bottom - top + 8);
    c.clip();
    c.beginPath();
    for (let k = from; k < to; k += 1) c.lineTo(this.px(k + shift), this.py(values[k]));
    c.strokeStyle = this.colour(name);
    c.lineWidth = width;
    c.lineJoin = c.lineCap = "round";
    c.stroke();
    c.restore();
  }

  dot(x, y, name) {
    this.c.beginPath();
    this.c.arc(this.px(x), this.py(y), 4, 0, 2 * Math.PI);
    this.c.fillStyle = this.colour(name);
    this.c.fill();
  }
}

/** Some five round numbers from `from` to `to`, with their labels. */
function roundTicks([from, to]) {
  const rough = (to - from) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(from / step); k * step <= to; k += 1) {
    ticks.push([k * step, (k * step).toFixed(digits)]);
  }
  return ticks;
}

/** The first step of every quarter, or of every year or so, labels some 48 pixels apart. */
function timeTicks(time, [from, to], width) {
  const ticks = (length, label) => {
    const found = [];
    for (let k = Math.max(Math.ceil(from), 1); k <= Math.min(to, time.length - 1); k += 1) {
      const now = time[k].slice(0, length);
      if (now !== time[k - 1].slice(0, length) && label(now)) found.push([k, label(now)]);
    }
    return found;
  };
  const quarters = ticks(7, (day) => (day.endsWith("-01") ? day.slice(0, 4) : MONTHS[day.slice(5)]));
  if (quarters.length * 48 <= width) return quarters;
  const years = ticks(4, (year) => year);
  const every = [1, 2, 5, 10, 20, 50].find((n) => (years.length / n) * 48 <= width) ?? 100;
  return years.filter(([, year]) => every === 1 || Number(year) % every === 0);
}

function range(values, from, to) {
  const some = values.slice(Math.max(from, 0), to);
  return [Math.min(...some), Math.max(...some)];
}

/** The last steps: what was measured, and over it what had been predicted `horizon` before. */
export function drawLive(canvas, { series, outputs, steps, unit }) {
  const { truth, time, horizon } = series;
  const shown = Math.min(canvas.clientWidth < 500 ? 104 : 208, truth.length);
  const last = Math.max(steps - 1 + horizon, shown - 1);
  const x = [last - shown + 1, last + 1];
  const [low, high] = range(truth, x[0], x[1] + 1);
  const pad = 0.12 * (high - low) || 1;
  const y = [low - pad, high + pad];
  const plot = new Plot(canvas, { x, y, unit });
  plot.band(series.test_from, truth.length, "held");
  plot.axes(timeTicks(time, x, canvas.clientWidth - 48), roundTicks(y));
  plot.line(truth, Math.max(x[0] - 1, 0), steps, "truth", 6);
  const first = Math.max(x[0] - 1 - horizon, 0);
  plot.line(outputs, first, steps, "prediction", 1.75, horizon);
  if (steps) plot.dot(steps - 1 + horizon, outputs[steps - 1], "prediction");
}

/** All that was measured so far on the axes of the whole series. */
export function drawWhole(canvas, { series, steps, unit }) {
  const { truth, time } = series;
  const y = range(truth, 0, truth.length);
  const plot = new Plot(canvas, { x: [0, truth.length], y, unit });
  plot.band(series.test_from, truth.length, "held");
  plot.axes(timeTicks(time, plot.x, canvas.clientWidth - 48), roundTicks(y));
  plot.line(truth, 0, truth.length, "grid", 1.5);
  plot.line(truth, 0, steps, "truth", 2);
  if (steps) plot.dot(steps - 1, truth[steps - 1], "truth");
}

/** How far each output was from the reference, on a logarithmic axis, with the bound. */
export function drawDistance(canvas, { series, distances, steps, unit }) {
  const top = Math.ceil(Math.log10(series.bound) + 0.5);
  const y = [10 ** (top - 5), 10 ** top];
  const plot = new Plot(canvas, { x: [0, series.truth.length], y, unit });
  plot.log = true;
  plot.axes(
    timeTicks(series.time, plot.x, canvas.clientWidth - 48),
    [0, 1, 2, 3, 4, 5].map((k) => [10 ** (top - k), power(top - k)]),
  );
  const { c } = plot;
  c.fillStyle = plot.colour("prediction");
  for (let k = 0; k < steps; k += 1) {
    c.fillRect(plot.px(k) - 0.75, plot.py(distances[k]) - 0.75, 1.5, 1.5);
  }
  c.strokeStyle = plot.colour("ink");
  c.lineWidth = 1.5;
  c.setLineDash([6, 4]);
  plot.segment(plot.box.left, plot.py(series.bound), plot.box.right, plot.py(series.bound));
}

/** 3.2 x 10^-5 as people write it, on one line. */
export function scientific(value) {
  const [factor, exponent] = value.toExponential(1).split("e");
  return value ? `${factor}\u2009×\u2009${power(Number(exponent))}` : "0";
}

function power(exponent) {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPT[digit]).join("");
  return `10${exponent < 0 ? "⁻" : ""}${digits}`;
}

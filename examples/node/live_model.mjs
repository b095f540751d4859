// An .onnx file that fastlstm exported, run one time step at a time with its state carried.
// It takes ONNX Runtime as an argument: onnxruntime-node or onnxruntime-web. examples/node/ and
// examples/browser/ hold the same copy, so that either folder can be taken away whole.

/** What the file says of itself under the metadata key `fastlstm`, parsed from JSON.
 * ONNX Runtime's JavaScript has no access to metadata, so it is read from the file's bytes: an
 * ONNX file is a protobuf ModelProto, and field 14 of that holds pairs of key (1) and value (2).
 * @param {Uint8Array} bytes a whole .onnx file
 */
export function readCard(bytes) {
  for (const [field, value] of fields(bytes)) {
    if (field !== 14) continue;
    const pair = new Map(fields(value));
    const text = (n) => new TextDecoder().decode(pair.get(n));
    if (text(1) === "fastlstm") return JSON.parse(text(2));
  }
  throw new Error(
    "expected an ONNX file that fastlstm exported, found no metadata under the key 'fastlstm': " +
      "write the file with `fastlstm export MODEL --to onnx -o FILE`",
  );
}

/** The length-delimited fields of a protobuf message, as [number, bytes]; others are passed over. */
function* fields(bytes) {
  let at = 0;
  const take = (count) => {
    if (!(at + count <= bytes.length)) {
      throw new Error("expected an ONNX file, found other bytes or a file that was cut off");
    }
    at += count;
    return bytes.subarray(at - count, at);
  };
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const [byte] = take(1);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const wire = tag % 8;
    if (wire === 0) varint();
    else if (wire === 1) take(8);
    else if (wire === 5) take(4);
    else yield [Math.floor(tag / 8), take(wire === 2 ? varint() : NaN)];
  }
}

/** One live stream, batch 1. */
export class LiveModel {
  /** Load a model; it begins in its initial state.
   * @param ort onnxruntime-node or onnxruntime-web
   * @param {Uint8Array} bytes a whole .onnx file
   * @param options of InferenceSession.create, such as executionProviders
   */
  static async load(ort, bytes, options = {}) {
    const card = readCard(bytes);
    if (card.layers.some((layer) => layer.kind === "Bidirectional")) {
      throw new Error(
        "expected a model that runs step by step, found a bidirectional one: it needs the whole " +
          "sequence, the samples to come included",
      );
    }
    return new LiveModel(ort, card, await ort.InferenceSession.create(bytes, options));
  }

  constructor(ort, card, session) {
    Object.assign(this, { ort, card, session });
    this.inputSize = card.layers[0].input_size;
    this.outputSize = card.layers.at(-1).output_size;
    this.reset();
  }

  /** Go back to the model's initial state. */
  reset() {
    this.feeds = {};
    for (const { input, size, initial } of this.card.states) {
      this.feeds[input] = new this.ort.Tensor("float32", Float32Array.from(initial), [1, size]);
    }
    // Where sequences of a batch may differ in length, ours is one step long.
    if (this.session.inputNames.includes("lengths")) {
      this.feeds.lengths = new this.ort.Tensor("int32", Int32Array.of(1), [1]);
    }
  }

  /** One time step: inputSize numbers in, a Float32Array of outputSize numbers out. */
  async step(sample) {
    if (sample.length !== this.inputSize) {
      throw new Error(`expected ${this.inputSize} values a sample, found ${sample.length}`);
    }
    const x = Float32Array.from(sample);
    this.feeds.x = new this.ort.Tensor("float32", x, [1, 1, this.inputSize]);
    const results = await this.session.run(this.feeds);
    for (const { input, output } of this.card.states) this.feeds[input] = results[output];
    return results.y.data;
  }
}

/** The value that the fraction q of all values does not exceed; NaN of none. */
export function quantile(values, q) {
  const sorted = Float64Array.from(values).sort();
  return sorted.length ? sorted[Math.ceil(q * sorted.length - 1e-9) - 1] : NaN;
}

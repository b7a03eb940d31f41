// jcs_cases.mjs — random documents, and what two other implementations of RFC 8785 make of them.
// Holds:  the same seed gives the same documents; each is written in a second, less tidy form.
import { createRequire } from 'node:module';
import { canonicalize as second } from 'json-canonicalize';

const first = createRequire(import.meta.url)('canonicalize');
const [seed, count] = process.argv.slice(2).map(Number);
let state = seed >>> 0;
function roll(below) { // xorshift32
  state ^= state << 13; state >>>= 0;
  state ^= state >>> 17;
  state ^= state << 5; state >>>= 0;
  return state % below;
}
const CHARACTERS = ['a', 'B', '"', '\\', '/', '\n', '\t', '\u0001', '\u001f', '\u007f', 'é', '€',
  '\u2028', '😀', '\ufb33', '\ue000', '\ud7ff', '1', '0', '10', '\u0000', 'ss', '‮'];
const text = () => Array.from({ length: roll(6) }, () => CHARACTERS[roll(CHARACTERS.length)])
  .join('');
function number() {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(0, (roll(65536) << 16 | roll(65536)) >>> 0);
  view.setUint32(4, (roll(65536) << 16 | roll(65536)) >>> 0);
  const any = view.getFloat64(0);
  const kinds = [any, roll(1000), -roll(1e6) / 8, roll(1e5) * 1e17, roll(1e5) / 1e9, 2 ** roll(70)];
  const value = kinds[roll(kinds.length)];
  return Number.isFinite(value) ? value : 0;
}
function value(depth) {
  switch (roll(depth > 4 ? 5 : 8)) {
    case 0: return text();
    case 1: case 2: return number();
    case 3: return [true, false, null][roll(3)];
    case 4: return text();
    case 5: return Array.from({ length: roll(5) }, () => value(depth + 1));
    default: return Object.fromEntries(Array.from({ length: roll(7) }, () => [text(),
      value(depth + 1)]).filter(([key]) => key !== '__proto__'));
  }
}
const lines = [];
for (let index = 0; index < count; index += 1) {
  const document = value(0);
  let source = JSON.stringify(document, null, roll(3));
  if (roll(2)) {
    source = source.replace(/[\u0080-\uffff]/g,
      (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
  }
  const hex = (output) => Buffer.from(output).toString('hex');
  lines.push(JSON.stringify({ source: hex(source), first: hex(first(document)),
    second: hex(second(document)) }));
}
process.stdout.write(lines.join('\n') + '\n');

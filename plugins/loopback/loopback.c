/* loopback.c — the smallest real transport: two peers that open the same address are joined.
 * Owns:   every open peer, in one list; a peer owns the frames that wait to be delivered to it.
 * Holds:  frames arrive in the order in which they were taken; no host function is called for a
 *         peer inside its open(); sent() of every frame comes before the state() of a loss.
 * Why:    it is the example of docs/TRANSPORTS.md, and the partner of the host's tests.
 * Limits: 1 MiB waits for one peer, frames of at most 1 MiB.
 * Not:    a network: both peers live in this process.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <claudemesh/peer_transport.h>

#define WAITING_MAX ((size_t)1 << 20)

struct frame {
  struct frame* next;
  uint64_t id; /* the sender's */
  uint32_t kind;
  size_t size;
  uint8_t data[];
};

struct peer {
  struct peer* next;
  struct peer* other; /* who opened the same address, or NULL */
  const cm_host* host;
  const cm_timer_v1* timer;
  cm_timer wake; /* 0: none is running */
  struct frame* first;
  struct frame** last;
  size_t waiting;      /* bytes from first on */
  bool connected;      /* as the host was told */
  bool paused;         /* deliver() would have blocked */
  bool sender_blocked; /* other's send() was answered CM_WOULD_BLOCK */
  uint64_t token;
  size_t address_size;
  uint8_t address[];
};

static struct peer* all_peers;

static struct peer* peer_of(cm_peer id) { return (struct peer*)(uintptr_t)id; }
static cm_peer id_of(const struct peer* peer) { return (cm_peer)(uintptr_t)peer; }

static void tell(const struct peer* peer, uint32_t state, const char* detail) {
  const cm_span text = {(const uint8_t*)detail, strlen(detail)};
  peer->host->state(peer->host, id_of(peer), state, 0, text);
}

static struct frame* pop(struct peer* peer) {
  struct frame* frame = peer->first;
  peer->first = frame->next;
  if (peer->first == NULL) peer->last = &peer->first;
  peer->waiting -= frame->size;
  return frame;
}

static void drop_all(struct peer* peer) {
  while (peer->first != NULL) {
    struct frame* frame = pop(peer);
    if (peer->other != NULL) {
      peer->host->sent(peer->host, id_of(peer->other), frame->id, CM_SENT_DROPPED);
    }
    free(frame);
  }
}

static void deliver_waiting(struct peer* peer) {
  while (peer->first != NULL && !peer->paused) {
    const struct frame* frame = peer->first;
    const cm_frame out = {sizeof out, frame->kind, {frame->data, frame->size}};
    const cm_status status = peer->host->deliver(peer->host, id_of(peer), &out, peer->token);
    if (status == CM_WOULD_BLOCK) {
      peer->paused = true;
      return;
    }
    if (status == CM_E_DISABLED) return;
    ++peer->token;
    peer->host->sent(peer->host, id_of(peer->other), frame->id,
                     status == CM_OK ? CM_SENT_HANDED : CM_SENT_DROPPED);
    free(pop(peer));
  }
  if (peer->sender_blocked && peer->waiting < WAITING_MAX / 2) {
    peer->sender_blocked = false;
    peer->host->writable(peer->host, id_of(peer->other));
  }
}

static void on_wake(void* context) {
  struct peer* peer = context;
  peer->wake = 0;
  if (peer->other == NULL) {
    tell(peer, CM_PEER_CONNECTING, "nobody else has opened this address");
    return;
  }
  if (!peer->connected) {
    peer->connected = true;
    tell(peer, CM_PEER_CONNECTED, "");
  }
  deliver_waiting(peer);
}

static void wake_soon(struct peer* peer) {
  if (peer->wake == 0) (void)peer->timer->start(peer->host, 0, on_wake, peer, &peer->wake);
}

static struct peer* find_partner(const cm_host* host, cm_span address) {
  for (struct peer* peer = all_peers; peer != NULL; peer = peer->next) {
    if (peer->host == host && peer->other == NULL && peer->address_size == address.size &&
        memcmp(peer->address, address.data, address.size) == 0) {
      return peer;
    }
  }
  return NULL;
}

static cm_status loopback_open(const cm_host* host, const cm_target* target, cm_peer* id) {
  if (target->address.size == 0) return CM_E_INVALID;
  const cm_timer_v1* timer = host->get_service(host, "timer.v1");
  if (timer == NULL) return CM_E_UNSUPPORTED;
  struct peer* peer = calloc(1, sizeof *peer + target->address.size);
  if (peer == NULL) return CM_E_NO_MEMORY;
  peer->host = host;
  peer->timer = timer;
  peer->last = &peer->first;
  peer->address_size = target->address.size;
  memcpy(peer->address, target->address.data, target->address.size);
  peer->other = find_partner(host, target->address);
  if (peer->other != NULL) {
    peer->other->other = peer;
    wake_soon(peer->other);
  }
  peer->next = all_peers;
  all_peers = peer;
  wake_soon(peer);
  *id = id_of(peer);
  return CM_OK;
}

static cm_status loopback_send(cm_peer id, const cm_frame* frame, uint64_t frame_id) {
  struct peer* peer = peer_of(id);
  struct peer* to = peer->other;
  const size_t size = frame->data.size;
  if (to == NULL || !peer->connected) return CM_E_CLOSED;
  if (size > WAITING_MAX) return CM_E_TOO_BIG;
  if (to->first != NULL && to->waiting + size > WAITING_MAX) {
    to->sender_blocked = true;
    return CM_WOULD_BLOCK;
  }
  struct frame* copy = malloc(sizeof *copy + size);
  if (copy == NULL) return CM_E_NO_MEMORY;
  copy->next = NULL;
  copy->id = frame_id;
  copy->kind = frame->kind;
  copy->size = size;
  if (size != 0) memcpy(copy->data, frame->data.data, size);
  *to->last = copy;
  to->last = &copy->next;
  to->waiting += size;
  if (!to->paused) wake_soon(to);
  return CM_OK;
}

static void loopback_note(cm_peer id, uint32_t verdict) {
  (void)id;
  (void)verdict;
}

static void loopback_close(cm_peer id, uint32_t code, cm_span reason) {
  (void)code;
  (void)reason;
  struct peer* peer = peer_of(id);
  struct peer* other = peer->other;
  if (peer->wake != 0) peer->timer->cancel(peer->host, peer->wake);
  drop_all(peer); /* what the other has sent */
  if (other != NULL) {
    other->other = NULL; /* the host wants to hear no more of `peer` */
    drop_all(other);
    other->paused = false;
    other->sender_blocked = false;
    if (other->connected) {
      other->connected = false;
      tell(other, CM_PEER_CONNECTING, "the other side was closed");
    }
  }
  struct peer** at = &all_peers;
  while (*at != peer) at = &(*at)->next;
  *at = peer->next;
  free(peer);
}

static void loopback_settled(cm_peer id, uint64_t token, uint32_t verdict) {
  (void)id;
  (void)token;
  (void)verdict;
}

static void loopback_resume(cm_peer id) {
  struct peer* peer = peer_of(id);
  peer->paused = false;
  deliver_waiting(peer);
}

static const cm_transport loopback = {
    .struct_size = sizeof(cm_transport),
    .abi_version = CM_ABI_VERSION,
    .kind = "loopback",
    .version = "1.0.0",
    .capabilities = CM_CAP_P2P | CM_CAP_BIDIRECTIONAL | CM_CAP_MID_TURN_PUSH,
    .max_message_bytes = WAITING_MAX,
    .open = loopback_open,
    .send = loopback_send,
    .note = loopback_note,
    .close = loopback_close,
    .settled = loopback_settled,
    .resume = loopback_resume,
};

const cm_transport* cm_transport_entry(uint32_t host_abi) {
  return host_abi >> 16 == CM_ABI_MAJOR ? &loopback : NULL;
}

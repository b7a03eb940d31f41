/* peer_transport.h — the C ABI between claudemesh and a transport plugin, version 1.0.
 * Owns:   every type and constant that crosses the border. A plugin's author needs no other file.
 * Holds:  a plugin moves opaque frames for one peer pair. It never sees a member, session or mesh
 *         secret: what it carries is ciphertext or signed. Its own secrets come by "config.v1".
 * Why:    sizes and versions come first in every struct and services are found by string id, so
 *         that version 1 never has to break: readers use only what struct_size covers.
 * Not:    retry, order, identity, what a frame says: the core's. Connect, TLS, ping, the stale
 *         rule and reconnecting with full jitter: the plugin's.
 *
 * Threads. Everything here is called on the host's loop thread, in both directions. A plugin whose
 * library has threads of its own brings their results back through an eventfd and "fd.v1"; a host
 * function that is called on another thread refuses.
 *
 * Re-entrancy. Host functions may be called from inside any plugin call or service callback: they
 * copy what they are given and queue it; none calls back into the plugin before returning. Plugin
 * functions must not block and must not unwind (no C++ exception, no longjmp) across the border.
 *
 * Memory. A cm_span is valid only during the call that carries it. Nobody frees what the other
 * side allocated. The host struct and its services live until the process ends.
 *
 * Budgets. The host times every call into a plugin; one that takes longer than its budget (5 ms
 * unless configured) is reported by the plugin's name. A plugin that breaks a rule marked MUST is
 * disabled: its peers are closed, it is never called again, its late calls are refused, and its
 * code stays mapped. The error names the plugin and the rule. A call for a peer that the host has
 * closed is only refused, since it may be on its way; any other unknown peer breaks a rule.
 */
#ifndef CLAUDEMESH_PEER_TRANSPORT_H
#define CLAUDEMESH_PEER_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CM_ABI_MAJOR 1u
#define CM_ABI_MINOR 0u
#define CM_ABI_VERSION ((CM_ABI_MAJOR << 16) | CM_ABI_MINOR)

#if defined(__GNUC__)
#define CM_TRANSPORT_EXPORT __attribute__((visibility("default")))
#else
#define CM_TRANSPORT_EXPORT
#endif

/* Bytes that somebody else owns. Not NUL-terminated. data may be NULL when size is 0. */
typedef struct cm_span {
  const uint8_t* data;
  size_t size;
} cm_span;

/* A peer, endpoint, watch or timer. Never 0. A plugin chooses the values of its peers and
 * endpoints, each unique among its live ones; the host chooses those of watches and timers. */
typedef uint64_t cm_peer;
typedef uint64_t cm_endpoint;
typedef uint64_t cm_watch;
typedef uint64_t cm_timer;

/* Answers of calls in both directions. */
typedef int32_t cm_status;
enum {
  CM_OK = 0,          /* done, or taken: the callee now answers for it */
  CM_WOULD_BLOCK = 1, /* not taken; the callee says when to try again */
  CM_E_INVALID = -1,  /* an argument or a setting is malformed */
  CM_E_TOO_BIG = -2,  /* larger than max_message_bytes */
  CM_E_CLOSED = -3,   /* no such peer, or it is not connected */
  CM_E_UNSUPPORTED = -4,
  CM_E_NO_MEMORY = -5,
  CM_E_SYSTEM = -6,  /* the operating system refused */
  CM_E_DISABLED = -7 /* the host has disabled this plugin */
};

/* Frame kinds. A control frame belongs to the hop (hello, acks, presence); an envelope is an
 * end-to-end message. A transport may order them apart but MUST keep each kind in order. */
enum { CM_FRAME_CONTROL = 0, CM_FRAME_ENVELOPE = 1 };

typedef struct cm_frame {
  uint32_t struct_size;
  uint32_t kind; /* CM_FRAME_* */
  cm_span data;  /* opaque, 0 to max_message_bytes bytes */
} cm_frame;

/* Connection states, as told by host->state. */
enum {
  CM_PEER_CONNECTING = 1, /* trying, or lost and trying again by itself */
  CM_PEER_CONNECTED = 2,  /* frames can be sent; the core signs and sends its hello now */
  CM_PEER_CLOSED = 3      /* final: the plugin gave up. No call for this peer follows. */
};

/* The core's verdict on the hello, told by note(). */
enum {
  CM_NOTE_READY = 1,      /* accepted: reset the backoff */
  CM_NOTE_AUTH_FAILED = 2 /* refused: reconnecting soon is useless, lengthen the backoff */
};

/* What became of a frame that was taken by send(). */
enum {
  CM_SENT_HANDED = 0, /* handed to the kernel or the network library; never "acknowledged" */
  CM_SENT_DROPPED = 1 /* the connection was lost before that */
};

/* What became of a frame that was taken by deliver(). A webhook turns it into an HTTP status. */
enum {
  CM_SETTLED_OK = 0,     /* durable at the receiver */
  CM_SETTLED_RETRY = 1,  /* could not be stored now: the sender may try again */
  CM_SETTLED_REFUSED = 2 /* will never be taken */
};

/* Capability bits, for the sender's choice of path. */
enum {
  CM_CAP_P2P = 1u << 0,
  CM_CAP_BIDIRECTIONAL = 1u << 1,
  CM_CAP_MID_TURN_PUSH = 1u << 2,
  CM_CAP_STREAMING_CHUNKS = 1u << 3
};

typedef struct cm_setting {
  cm_span key;
  cm_span value; /* UTF-8 */
} cm_setting;

typedef struct cm_host cm_host;

/* Argument of open(): where to connect, with the settings of this one peer. */
typedef struct cm_target {
  uint32_t struct_size;
  uint32_t setting_count;
  const cm_setting* settings;
  cm_span address; /* in the transport's own form: ws://host:port/ws, https://..., a peer id */
} cm_target;

/* Argument of listen(): accept peers by itself. */
typedef struct cm_listen {
  uint32_t struct_size;
  uint32_t setting_count;
  const cm_setting* settings;
  cm_span address;
} cm_listen;

/* The plugin's side. A constant that lives as long as the process. Optional members may be NULL;
 * all others MUST be set. */
typedef struct cm_transport {
  uint32_t struct_size;       /* sizeof(cm_transport) as the plugin was compiled */
  uint32_t abi_version;       /* CM_ABI_VERSION as the plugin was compiled */
  const char* kind;           /* "ws-broker"; [a-z0-9-]{1,32}, unique among loaded plugins */
  const char* version;        /* of the plugin, shown by `transport list` */
  uint32_t capabilities;      /* CM_CAP_* */
  uint32_t reserved;          /* 0 */
  uint64_t max_message_bytes; /* largest frame that send() takes */

  /* Starts connecting and answers at once; never blocks. On CM_OK *peer is set and one state() call
   * follows; the plugin MUST NOT call the host for this peer before open() has returned (a timer of
   * 0 ms is the way). Any other answer: nothing was started. What the plugin wrote to "log.v1" as
   * CM_LOG_ERROR inside this call is then the reason that a person sees. */
  cm_status (*open)(const cm_host* host, const cm_target* target, cm_peer* peer);

  /* Optional. Starts accepting; each arriving peer is told by host->incoming. */
  cm_status (*listen)(const cm_host* host, const cm_listen* config, cm_endpoint* endpoint);
  /* Optional, with listen. Stops accepting; peers that arrived stay. */
  void (*unlisten)(cm_endpoint endpoint);

  /* Takes a copy of the frame (CM_OK), or answers CM_WOULD_BLOCK, upon which the plugin MUST call
   * host->writable(peer) exactly once when there is room again, after send() has returned. For each
   * frame taken host->sent(peer, id, ..) MUST follow exactly once (also from inside send), unless
   * close() or CM_PEER_CLOSED comes first. Frames of one kind arrive in the order in which they
   * were taken. A loss ends all that was owed: sent(CM_SENT_DROPPED) MUST come before the state()
   * that reports it, and a writable() that was due is then not called. */
  cm_status (*send)(cm_peer peer, const cm_frame* frame, uint64_t id);

  void (*note)(cm_peer peer, uint32_t verdict); /* CM_NOTE_* */
  /* Optional. Probe the peer now instead of at the next ping. */
  void (*heartbeat)(cm_peer peer);
  /* Ends the peer. `code` is a WebSocket close code for transports that have a place for it, and
   * `reason` at most 123 bytes. After it returns nothing is called for this peer in either
   * direction; sent() of frames still held is forfeited. */
  void (*close)(cm_peer peer, uint32_t code, cm_span reason);

  /* Answers one token that host->deliver took. Comes after the commit that stored the frame. */
  void (*settled)(cm_peer peer, uint64_t token, uint32_t verdict); /* CM_SETTLED_* */
  /* Ends a CM_WOULD_BLOCK of host->deliver: deliver the refused frame again, then go on. It may be
   * refused again. A loss ends the CM_WOULD_BLOCK too, and no resume() follows. */
  void (*resume)(cm_peer peer);

  /* Optional. A JSON Schema of the settings, for `transport list` and configuration checks. */
  const char* config_schema;
} cm_transport;

/* The host's side: one for each plugin. */
struct cm_host {
  uint32_t struct_size;
  uint32_t abi_version;

  /* `code` is a WebSocket close code, or 0; `detail` a sentence without its full stop, UTF-8, cut
   * at 512 bytes. CM_PEER_CONNECTING may be repeated (each failed attempt has its own detail). */
  void (*state)(const cm_host* host, cm_peer peer, uint32_t state, uint32_t code, cm_span detail);
  /* A frame arrived; only while the peer is CM_PEER_CONNECTED. `token` is the plugin's and comes
   * back by settled(). CM_OK: taken, a copy was made. CM_WOULD_BLOCK: the iteration is full; stop
   * reading this peer, and MUST NOT deliver for it until resume(). CM_E_TOO_BIG: the host takes no
   * frame of this size; end the connection. */
  cm_status (*deliver)(const cm_host* host, cm_peer peer, const cm_frame* frame, uint64_t token);
  /* A peer arrived at an endpoint. It counts as CM_PEER_CONNECTED. Any answer but CM_OK: the host
   * has no room and does not know this peer; hang up. */
  cm_status (*incoming)(const cm_host* host, cm_endpoint endpoint, cm_peer peer, cm_span address);
  void (*sent)(const cm_host* host, cm_peer peer, uint64_t id, uint32_t outcome); /* CM_SENT_* */
  void (*writable)(const cm_host* host, cm_peer peer);

  /* The service of this id ("fd.v1"), or NULL if this host does not have it. */
  const void* (*get_service)(const cm_host* host, const char* id);
};

/* --- services ------------------------------------------------------------------------------- */

enum { CM_FD_READ = 1u << 0, CM_FD_WRITE = 1u << 1 };
typedef void (*cm_fd_callback)(void* context, int fd, uint32_t events);
typedef void (*cm_timer_callback)(void* context);

/* "fd.v1": the loop watches a descriptor that the plugin owns. Level-triggered; an error or a
 * hang-up is reported as ready. The plugin unwatches before it closes the descriptor. A callback
 * may unwatch anything, itself included; a watch that is gone is never called. */
typedef struct cm_fd_v1 {
  uint32_t struct_size;
  uint32_t reserved;
  cm_status (*watch)(const cm_host* host, int fd, uint32_t events, cm_fd_callback callback,
                     void* context, cm_watch* watch);
  cm_status (*change)(const cm_host* host, cm_watch watch, uint32_t events);
  void (*unwatch)(const cm_host* host, cm_watch watch);
} cm_fd_v1;

/* "timer.v1": one-shot timers in milliseconds of a monotonic clock. A timer that fired is gone;
 * cancelling it then does nothing. A timer of 0 ms fires in the next iteration at the latest, never
 * inside start(); timers of one deadline fire in the order in which they were started. */
typedef struct cm_timer_v1 {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t (*now_ms)(const cm_host* host);
  cm_status (*start)(const cm_host* host, uint64_t delay_ms, cm_timer_callback callback,
                     void* context, cm_timer* timer);
  void (*cancel)(const cm_host* host, cm_timer timer);
} cm_timer_v1;

/* "log.v1": one line for operators, cut at 1,024 bytes; at most 64 lines an iteration. Never pass
 * frames or secrets. */
enum { CM_LOG_DEBUG = 0, CM_LOG_INFO = 1, CM_LOG_WARN = 2, CM_LOG_ERROR = 3 };
typedef struct cm_log_v1 {
  uint32_t struct_size;
  uint32_t reserved;
  void (*write)(const cm_host* host, uint32_t level, cm_span text);
} cm_log_v1;

/* "config.v1": the plugin's own section of the configuration. CM_E_UNSUPPORTED: not set. The value
 * is valid until the current call into the plugin returns. */
typedef struct cm_config_v1 {
  uint32_t struct_size;
  uint32_t reserved;
  cm_status (*get)(const cm_host* host, cm_span key, cm_span* value);
} cm_config_v1;

/* "random.v1": cryptographically secure bytes (seeded and repeatable under the simulator). */
typedef struct cm_random_v1 {
  uint32_t struct_size;
  uint32_t reserved;
  void (*fill)(const cm_host* host, uint8_t* to, size_t size);
} cm_random_v1;

/* "metrics.v1": counters, shown as cm_transport_events_total{kind="..",name=".."}. `name` is
 * [a-z0-9_]{1,48}; CM_E_NO_MEMORY beyond 64 names. */
typedef struct cm_metrics_v1 {
  uint32_t struct_size;
  uint32_t reserved;
  cm_status (*add)(const cm_host* host, const char* name, uint64_t amount);
} cm_metrics_v1;

/* The one exported symbol. `host_abi` is the host's CM_ABI_VERSION. Answers the plugin's table, or
 * NULL if it cannot work with a host of that major version. Called once, on the loop thread. */
CM_TRANSPORT_EXPORT const cm_transport* cm_transport_entry(uint32_t host_abi);

#ifdef __cplusplus
}
#endif

#endif /* CLAUDEMESH_PEER_TRANSPORT_H */

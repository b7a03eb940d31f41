/* refused.c — plugins that are refused at load, one fault each, chosen by a macro.
 * Holds:  everything but the one fault is in order.
 * Not:    faults at run time (puppet.c).
 */
#include <claudemesh/peer_transport.h>

#ifndef BAD_NO_ENTRY

static cm_status never_open(const cm_host* host, const cm_target* target, cm_peer* peer) {
  (void)host;
  (void)target;
  (void)peer;
  return CM_E_UNSUPPORTED;
}
static cm_status never_send(cm_peer peer, const cm_frame* frame, uint64_t id) {
  (void)peer;
  (void)frame;
  (void)id;
  return CM_E_CLOSED;
}
static void never_note(cm_peer peer, uint32_t verdict) {
  (void)peer;
  (void)verdict;
}
static void never_close(cm_peer peer, uint32_t code, cm_span reason) {
  (void)peer;
  (void)code;
  (void)reason;
}
static void never_settled(cm_peer peer, uint64_t token, uint32_t verdict) {
  (void)peer;
  (void)token;
  (void)verdict;
}
static void never_resume(cm_peer peer) { (void)peer; }

#ifdef BAD_HALF_LISTEN
static cm_status never_listen(const cm_host* host, const cm_listen* config, cm_endpoint* endpoint) {
  (void)host;
  (void)config;
  (void)endpoint;
  return CM_E_UNSUPPORTED;
}
#endif

static const cm_transport refused = {
#ifdef BAD_SMALL_STRUCT
    .struct_size = 64,
#else
    .struct_size = sizeof(cm_transport),
#endif
#ifdef BAD_WRONG_MAJOR
    .abi_version = 2u << 16,
#else
    .abi_version = CM_ABI_VERSION,
#endif
#ifdef BAD_BAD_KIND
    .kind = "Not A Kind",
#else
    .kind = "twin",
#endif
    .version = "1",
#ifndef BAD_NO_SIZE
    .max_message_bytes = 1024,
#endif
    .open = never_open,
#ifdef BAD_HALF_LISTEN
    .listen = never_listen,
#endif
    .send = never_send,
    .note = never_note,
    .close = never_close,
    .settled = never_settled,
#ifndef BAD_MISSING_MEMBER
    .resume = never_resume,
#endif
};

const cm_transport* cm_transport_entry(uint32_t host_abi) {
  (void)host_abi;
#ifdef BAD_NULL_ENTRY
  (void)refused;
  (void)never_resume;
  return NULL;
#else
#ifdef BAD_MISSING_MEMBER
  (void)never_resume;
#endif
  return &refused;
#endif
}

#else
int no_entry_here;
#endif

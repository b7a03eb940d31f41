// workload.h — the clients of a run: what they ask their daemons, and when.
// Owns:   Workload: fresh sends, retries, conflicting reuse of ids, bursts in one lane, requeues,
//         drops, prunes, questions for a message's status, readings.
// Holds:  it draws from the run's generator alone and remembers only what it asked.
// Why:    the promises are about retries and order, so most of what it does is ask again.
// Not:    judging answers (oracle.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/legacy_client.h"
#include "tests/sim/node.h"

namespace cm::sim {

class Workload {
 public:
  Workload(Wires& wires, std::vector<DaemonNode>& daemons) : wires_(wires), daemons_(daemons) {}
  // It gets mail like a daemon, and sends some. Outlives this.
  void add_client(LegacyClient& client) { clients_.push_back(&client); }

  // Some client does something now.
  void act(std::uint64_t now_ms);
  // Milliseconds until some client does something again.
  std::uint64_t pause_ms();
  // Asks again what was asked with an id: the same, and something else under the same id.
  void ask_all_again(std::uint64_t now_ms);

 private:
  std::uint32_t fresh(std::uint32_t daemon);
  std::uint32_t conflicting(const Request& with);
  std::string body_text(std::uint32_t daemon, bool oversize, std::string_view marker = kMarker);
  void send(std::uint64_t now_ms, std::uint32_t number);
  void burst(std::uint64_t now_ms, std::uint32_t daemon);
  void malformed(std::uint64_t now_ms, std::uint32_t daemon);
  void read(std::uint64_t now_ms, std::uint32_t daemon);
  void requeue(std::uint64_t now_ms, std::uint32_t daemon);
  void status(std::uint64_t now_ms, std::uint32_t daemon);
  void drop(std::uint64_t now_ms, std::uint32_t daemon);
  void mark_seen(std::uint64_t now_ms, std::uint32_t daemon);
  void prune(std::uint64_t now_ms, std::uint32_t daemon);
  void subscribe(std::uint64_t now_ms, std::uint32_t daemon);
  void send_as(LegacyClient& client);
  // Of daemons first, then of clients.
  const Identity& identity(std::size_t index) const;
  // May a message be sent to it? The key of a session that has never been there is nobody's.
  bool is_known(std::size_t index) const;
  // An earlier request of this daemon that has an id, among the newest; null if none was found.
  const Request* earlier(std::uint32_t daemon, std::size_t newest = SIZE_MAX);
  bool may_ask_more() const;
  void stream(std::uint64_t now_ms, std::uint32_t daemon);
  std::uint32_t some_live_daemon(bool& found);

  Wires& wires_;
  std::vector<DaemonNode>& daemons_;
  std::vector<LegacyClient*> clients_;
  std::uint32_t ids_ = 0;
  std::vector<std::pair<std::uint32_t, ConnRef>> open_;  // calls that a client may give up
};

}  // namespace cm::sim

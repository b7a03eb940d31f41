// traffic.cc — the drawing of requests.
#include "tests/faults/traffic.h"

#include <cstdio>

namespace cm::faults {
namespace {

constexpr const char* kPriorities[] = {"now", "next", "low"};

}  // namespace

void Traffic::furnish() {
  world_.call(kAlice, "POST", "/v1/topic/create", R"({"name":"build"})");
  world_.call(kBob, "POST", "/v1/topic/subscribe", R"({"topic":"build"})");
  world_.call(kAlice, "POST", "/v1/group/join", R"({"name":"crew","role":"lead"})");
  world_.call(kBob, "POST", "/v1/profile", R"({"summary":"tests","title":"b"})");
  share();
}

void Traffic::step() {
  if (steps_away_ != 0 && --steps_away_ == 0) world_.partition(kBob, false);
  const std::uint64_t dice = rng_.below(100);
  if (dice < 62) {
    send();
  } else if (dice < 72 && !sent_.empty()) {
    ask(sent_[rng_.below(sent_.size())]);
  } else if (dice < 82) {
    erase_some();
  } else if (dice < 90) {
    share();
  } else if (dice < 94 && steps_away_ == 0) {
    world_.partition(kBob, true);
    steps_away_ = static_cast<std::uint32_t>(rng_.between(2, 8));
  } else if (dice < 96) {
    restart_one();
  } else if (!sent_.empty()) {
    // What has not ended is not dropped: its bytes are what it needs.
    const Sent& sent = sent_[rng_.below(sent_.size())];
    world_.call(sent.from, "DELETE", "/v1/outbox/" + sent.id);
  }
  world_.advance(rng_.between(1, 400));
}

void Traffic::send() {
  Sent sent;
  sent.from = rng_.chance(500) ? kAlice : kBob;
  sent.to = sent.from == kAlice ? kBob : kAlice;
  char id[32];
  std::snprintf(id, sizeof id, "%s-%06zu", kNodeNames[sent.from], first_ + sent_.size());
  sent.id = id;
  sent.priority = kPriorities[rng_.chance(600) ? 1 : rng_.below(3)];
  const std::uint64_t size = rng_.chance(120) ? rng_.between(3'000, 14'000) : rng_.below(160);
  sent.body = sent.id + " " + std::string(size, static_cast<char>('a' + rng_.below(26)));
  sent_.push_back(std::move(sent));
  ask(sent_.back());
}

void Traffic::ask(Sent& sent) {
  const Reply reply = world_.call(sent.from, "POST", "/v1/send",
                                  R"({"to":")" + world_.who(sent.to).key_hex + R"(","message":")" +
                                      sent.body + R"(","priority":")" + sent.priority +
                                      R"(","client_message_id":")" + sent.id + "\"}");
  if (reply.status == 200 || reply.status == 202) sent.accepted = true;
}

void Traffic::erase_some() {
  const Node node = rng_.chance(500) ? kAlice : kBob;
  if (rng_.chance(100)) {
    world_.call(node, "DELETE", "/v1/inbox", {}, "all=true");
    return;
  }
  const Reply newest = world_.call(node, "GET", "/v1/inbox", {}, "limit=1");
  const std::string id = field(newest.text, "id");
  if (!id.empty()) world_.call(node, "DELETE", "/v1/inbox/" + id);
}

bool Traffic::drop_one(Node node) {
  for (const Sent& sent : sent_) {
    if (sent.from != node) continue;
    if (world_.call(node, "DELETE", "/v1/outbox/" + sent.id).status == 200) return true;
  }
  return false;
}

void Traffic::share() {
  const Node node = rng_.chance(500) ? kAlice : kBob;
  const std::string number = std::to_string(rng_.below(20));
  world_.call(node, "POST", "/v1/state",
              R"({"key":"k)" + number + R"(","value":{"n":)" + number + "}}");
  world_.call(node, "POST", "/v1/memory", R"({"content":"memory )" + number + R"(","tags":["t"]})");
  world_.call(node, "POST", "/v1/topic/post",
              R"({"topic":"build","message":"post )" + number + "\"}");
}

void Traffic::restart_one() {
  const Node node = static_cast<Node>(rng_.below(kNodes));
  world_.kill(node);
  const Status started = world_.start(node);
  if (!started) std::fprintf(stderr, "restart: %s\n", started.error().detail.c_str());
}

bool Traffic::finish() {
  steps_away_ = 0;
  world_.partition(kBob, false);
  constexpr int kTries = 60;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    bool all = true;
    for (Sent& sent : sent_) {
      if (!sent.accepted) ask(sent);
      all = all && sent.accepted;
    }
    if (!world_.advance(2'000)) return false;
    const auto waits = [&](Node node) {
      return world_.call(node, "GET", "/v1/outbox", {}, "status=pending")
                     .text.find("\"items\":[]") == std::string::npos ||
             world_.call(node, "GET", "/v1/outbox", {}, "status=inflight")
                     .text.find("\"items\":[]") == std::string::npos;
    };
    if (all && attempt > 1 && !waits(kAlice) && !waits(kBob)) return world_.advance(40'000);
  }
  return false;
}

}  // namespace cm::faults

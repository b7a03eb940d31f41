// cells.cc — the tables of cells and their report.
#include "tests/sim/cells.h"

#include <algorithm>
#include <cstdio>

namespace cm::sim {

const CellTable& outbox_cells() {
  static const CellTable kTable = {
      "outbox row",
      {"none", "pending", "inflight", "done", "dead", "aborted"},
      {"send same", "send other", "requeue", "sent", "accepted", "duplicate", "transient",
       "permanent", "link lost", "timeout", "too old", "start", "abandon"},
      {"+a+b++++ccccc",   // none
       "+++++++++p+++",   // pending
       "+++e++++++f++",   // inflight
       "+++g+++++gg++",   // done
       "+++g+++++gg++",   // dead
       "+++g+++++gg++"},  // aborted
      {{'a', "without a row no request is another one"},
       {'b', "what is sent has a row"},
       {'c', "there is no row to which it could happen"},
       {'e', "what is in flight is pending again before it is sent again"},
       {'f', "what is in flight waits for its answer, at most 15 s"},
       {'g', "a row that has ended is not worked on"},
       {'p', "what is pending waits for no answer"}}};
  return kTable;
}

const CellTable& delivery_cells() {
  static const CellTable kTable = {"delivery row",
                                   {"none", "queued", "claimed", "delivered", "expired"},
                                   {"send", "send again", "push", "ack", "wrong ack", "lease ends",
                                    "closed", "too old", "start", "abandon"},
                                   {"+abd+ccccc",   // none
                                    "e++++l++++",   // queued
                                    "e+x+++++++",   // claimed
                                    "e+y++yyy++",   // delivered
                                    "e+y++yyy++"},  // expired
                                   {{'a', "a known id has a message"},
                                    {'b', "what is pushed has a row"},
                                    {'c', "there is no row to which it could happen"},
                                    {'d', "without a row there is no recipient"},
                                    {'e', "a fresh id has no row yet"},
                                    {'l', "only a claim has a lease"},
                                    {'x', "a claimed row is released before it is pushed again"},
                                    {'y', "a row that has ended is a receipt"}}};
  return kTable;
}

const CellTable& link_cells() {
  static const CellTable kTable = {
      "link",
      {"connecting", "hello sent", "open", "refused"},
      {"up", "down", "replaced", "hello_ack", "error", "push", "ack", "peers_list", "features",
       "blocked", "writable", "hello timeout", "reopen", "abandon"},
      {"++abbbbbbbbd++",   // connecting
       "e+a++gggg+++h+",   // hello sent
       "e++++++++++ih+",   // open
       "rrrrrrrrrrrr++"},  // refused
      {{'a', "only who has negotiated is replaced"},
       {'b', "without a connection nothing arrives"},
       {'d', "the deadline begins with the hello"},
       {'e', "a connection that is up does not come up"},
       {'g', "our broker sends nothing before its hello_ack"},
       {'h', "it is closed first"},
       {'i', "the hello was answered"},
       {'r', "a refused link has no connection"}}};
  return kTable;
}

bool Cells::report(bool whole) const {
  bool good = true;
  std::size_t at = 0;
  for (const CellTable* table : {&outbox_cells(), &delivery_cells(), &link_cells()}) {
    const auto& counts = counts_[at++];
    std::size_t reached = 0;
    std::size_t reachable = 0;
    std::string missing;
    std::string forbidden;
    for (std::size_t state = 0; state < table->states.size(); ++state) {
      for (std::size_t event = 0; event < table->events.size(); ++event) {
        const char expected = table->map[state][event];
        const std::string name =
            std::string(table->states[state]) + " x " + std::string(table->events[event]);
        const bool hit = counts[state][event] != 0;
        if (expected == '+') {
          ++reachable;
          reached += hit ? 1 : 0;
          if (!hit) missing += (missing.empty() ? "" : ", ") + name;
        } else if (hit) {
          const auto why = std::find_if(table->legend.begin(), table->legend.end(),
                                        [&](const auto& row) { return row.first == expected; });
          forbidden += "\n    " + name + ", although " + std::string(why->second);
        }
        if (whole) {
          std::printf("    %-34s %12llu%s\n", name.c_str(),
                      static_cast<unsigned long long>(counts[state][event]),
                      expected == '+' ? "" : "  (cannot be)");
        }
      }
    }
    std::printf("  cells of a%s %.*s: reached %zu of %zu\n", at == 1 ? "n" : "",
                static_cast<int>(table->name.size()), table->name.data(), reached, reachable);
    if (!missing.empty()) std::printf("    not reached: %s\n", missing.c_str());
    if (!forbidden.empty()) std::printf("    should not have been reached:%s\n", forbidden.c_str());
    good = good && missing.empty() && forbidden.empty();
  }
  return good;
}

}  // namespace cm::sim

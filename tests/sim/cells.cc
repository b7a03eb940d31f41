// cells.cc — the tables of cells and their report.
#include "tests/sim/cells.h"

#include <algorithm>
#include <cstdio>

namespace cm::sim {

namespace {

// What no daemon of a simulation meets; OutboxWalk (tests/unit) drives each of these cells.
std::string_view not_simulated(daemon::OutboxEvent event) noexcept {
  switch (event) {
    case daemon::OutboxEvent::kMeshLeft: return "no daemon of a simulation leaves its mesh";
    case daemon::OutboxEvent::kKeyChanged: return "no daemon of a simulation changes its key";
    case daemon::OutboxEvent::kBodyCorrupt: return "no disk of a simulation rots";
    default: return {};
  }
}

}  // namespace

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

void Cells::add(const daemon::CellCounts& counts) noexcept {
  for (std::size_t state = 0; state < counts.size(); ++state) {
    for (std::size_t event = 0; event < counts[state].size(); ++event) {
      outbox_[state][event] += counts[state][event];
    }
  }
}

std::vector<Cells::Cell> Cells::cells_of_outbox() const {
  std::vector<Cell> cells;
  for (std::size_t state = 0; state < daemon::kOutboxStates; ++state) {
    for (std::size_t event = 0; event < daemon::kOutboxEvents; ++event) {
      const auto what = static_cast<daemon::OutboxEvent>(event);
      const daemon::OutboxCell& rule = daemon::kOutboxRules[state][event];
      const bool impossible = rule.kind == daemon::CellKind::kImpossible;
      cells.push_back({std::string(text_of(static_cast<daemon::OutboxState>(state))) + " x " +
                           std::string(text_of(what)),
                       outbox_[state][event], impossible ? rule.text : not_simulated(what)});
    }
  }
  return cells;
}

std::vector<Cells::Cell> Cells::cells_of(std::size_t at, const CellTable& table) const {
  std::vector<Cell> cells;
  for (std::size_t state = 0; state < table.states.size(); ++state) {
    for (std::size_t event = 0; event < table.events.size(); ++event) {
      const char letter = table.map[state][event];
      const auto why = std::find_if(table.legend.begin(), table.legend.end(),
                                    [&](const auto& row) { return row.first == letter; });
      cells.push_back({std::string(table.states[state]) + " x " + std::string(table.events[event]),
                       counts_[at][state][event],
                       why == table.legend.end() ? std::string_view{} : why->second});
    }
  }
  return cells;
}

bool Cells::report_one(std::string_view name, const std::vector<Cell>& cells, bool whole) {
  std::size_t reached = 0;
  std::size_t reachable = 0;
  std::string missing;
  std::string forbidden;
  for (const Cell& cell : cells) {
    const bool hit = cell.count != 0;
    if (cell.cannot_be.empty()) {
      ++reachable;
      reached += hit ? 1 : 0;
      if (!hit) missing += (missing.empty() ? "" : ", ") + cell.name;
    } else if (hit) {
      forbidden += "\n    " + cell.name + ", although " + std::string(cell.cannot_be);
    }
    if (whole) {
      std::printf("    %-34s %12llu%s%.*s\n", cell.name.c_str(),
                  static_cast<unsigned long long>(cell.count),
                  cell.cannot_be.empty() ? "" : "  cannot be: ",
                  static_cast<int>(cell.cannot_be.size()), cell.cannot_be.data());
    }
  }
  std::printf("  cells of %.*s: reached %zu of %zu\n", static_cast<int>(name.size()), name.data(),
              reached, reachable);
  if (!missing.empty()) std::printf("    not reached: %s\n", missing.c_str());
  if (!forbidden.empty()) std::printf("    should not have been reached:%s\n", forbidden.c_str());
  return missing.empty() && forbidden.empty();
}

bool Cells::report(bool whole) const {
  bool good = report_one("an outbox row", cells_of_outbox(), whole);
  std::size_t at = 0;
  for (const CellTable* table : {&delivery_cells(), &link_cells()}) {
    const std::string name = "a " + std::string(table->name);
    good = report_one(name, cells_of(at++, *table), whole) && good;
  }
  return good;
}

}  // namespace cm::sim

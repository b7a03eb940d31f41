// route_counts.h — how often each route of the local HTTP API was answered, and how fast.
// Owns:   RouteCounts: replies by route, class of status and transport; a histogram of durations.
// Holds:  the last row is for unknown routes. Durations are by the clock of iterations: what is
//         answered in the one that read it took 0 ms.
// Not:    counters without a route (core/base/metrics.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cm {
class TextBuf;
}

namespace cm::daemon {

class RouteCounts {
 public:
  // `append_endpoint` writes the label of a route, without quotes.
  using AppendEndpoint = void (*)(std::size_t route, TextBuf& out);

  explicit RouteCounts(std::size_t routes) : rows_(routes + 1) {}

  void add(std::size_t route, bool over_unix, std::uint32_t status, std::uint64_t ms) noexcept;
  // In the text format of Prometheus.
  void append(AppendEndpoint append_endpoint, TextBuf& out) const;

 private:
  static constexpr std::uint64_t kBoundsMs[] = {1, 10, 100, 1'000, 5'000};
  static constexpr std::size_t kBounds = sizeof kBoundsMs / sizeof *kBoundsMs + 1;
  struct Row {
    std::uint64_t replies[2][4] = {};    // [unix or tcp][2xx, 3xx, 4xx, 5xx]
    std::uint64_t within[kBounds] = {};  // answers by how long they took
    std::uint64_t sum_ms = 0;
  };
  void append_replies(AppendEndpoint append_endpoint, TextBuf& out) const;
  void append_durations(AppendEndpoint append_endpoint, TextBuf& out) const;

  std::vector<Row> rows_;  // by route
};

}  // namespace cm::daemon

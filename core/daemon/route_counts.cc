// route_counts.cc — replies of the local HTTP API, counted and written as metrics.
// Holds:  no label is taken from a client.
// Source: spec/ipc.md §10.
#include "core/daemon/route_counts.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "core/base/arena.h"

namespace cm::daemon {
namespace {

std::size_t status_class(std::uint32_t status) noexcept {
  return std::clamp<std::size_t>(status / 100, 2, 5) - 2;
}

void append_seconds(std::uint64_t ms, TextBuf& out) {
  out.append_unsigned(ms / 1000);
  out.append('.');
  for (std::uint64_t unit = 100; unit != 0; unit /= 10) {
    out.append(static_cast<char>('0' + ms / unit % 10));
  }
}

}  // namespace

void RouteCounts::add(std::size_t route, bool over_unix, std::uint32_t status,
                      std::uint64_t ms) noexcept {
  Row& row = rows_[route];
  ++row.replies[over_unix ? 0 : 1][status_class(status)];
  const auto bound = std::lower_bound(std::begin(kBoundsMs), std::end(kBoundsMs), ms);
  ++row.within[static_cast<std::size_t>(bound - std::begin(kBoundsMs))];
  row.sum_ms += ms;
}

void RouteCounts::append(AppendEndpoint append_endpoint, TextBuf& out) const {
  append_replies(append_endpoint, out);
  append_durations(append_endpoint, out);
}

void RouteCounts::append_replies(AppendEndpoint append_endpoint, TextBuf& out) const {
  constexpr std::string_view kTransports[] = {"unix", "tcp"};
  constexpr std::string_view kClasses[] = {"2xx", "3xx", "4xx", "5xx"};
  out.append(
      "# HELP cm_daemon_ipc_replies_total IPC replies by endpoint, status and transport\n"
      "# TYPE cm_daemon_ipc_replies_total counter\n");
  for (std::size_t route = 0; route < rows_.size(); ++route) {
    for (std::size_t transport = 0; transport < 2; ++transport) {
      for (std::size_t kind = 0; kind < 4; ++kind) {
        const std::uint64_t count = rows_[route].replies[transport][kind];
        if (count == 0) continue;
        out.append("cm_daemon_ipc_replies_total{endpoint=\"");
        append_endpoint(route, out);
        out.append("\",status=\"");
        out.append(kClasses[kind]);
        out.append("\",transport=\"");
        out.append(kTransports[transport]);
        out.append("\"} ");
        out.append_unsigned(count);
        out.append('\n');
      }
    }
  }
}

void RouteCounts::append_durations(AppendEndpoint append_endpoint, TextBuf& out) const {
  constexpr std::string_view kLabels[] = {"0.001", "0.01", "0.1", "1", "5", "+Inf"};
  static_assert(std::size(kLabels) == kBounds);
  out.append(
      "# HELP cm_daemon_ipc_duration_seconds Time from request to answer by the clock of the loop\n"
      "# TYPE cm_daemon_ipc_duration_seconds histogram\n");
  const auto begin = [&](std::string_view part, std::size_t route) {
    out.append("cm_daemon_ipc_duration_seconds");
    out.append(part);
    out.append("{endpoint=\"");
    append_endpoint(route, out);
    out.append('"');
  };
  for (std::size_t route = 0; route < rows_.size(); ++route) {
    const Row& counts = rows_[route];
    std::uint64_t sum = 0;
    for (const std::uint64_t count : counts.within) sum += count;
    if (sum == 0) continue;
    std::uint64_t below = 0;
    for (std::size_t bound = 0; bound < kBounds; ++bound) {
      below += counts.within[bound];
      begin("_bucket", route);
      out.append(",le=\"");
      out.append(kLabels[bound]);
      out.append("\"} ");
      out.append_unsigned(below);
      out.append('\n');
    }
    begin("_sum", route);
    out.append("} ");
    append_seconds(counts.sum_ms, out);
    out.append('\n');
    begin("_count", route);
    out.append("} ");
    out.append_unsigned(sum);
    out.append('\n');
  }
}

}  // namespace cm::daemon

// metrics.cc — the metric table and its Prometheus exposition.
#include "core/base/metrics.h"

#include "core/base/arena.h"

namespace cm {
namespace {

constexpr MetricInfo kMetrics[] = {
#define CM_METRIC_ROW(enum_name, role, kind, name, labels, help) \
  {MetricRole::k##role, MetricKind::k##kind, name, labels, help},
    CM_METRICS(CM_METRIC_ROW)
#undef CM_METRIC_ROW
};

}  // namespace

const MetricInfo& info_of(Metric metric) noexcept {
  return kMetrics[static_cast<std::size_t>(metric)];
}

void Metrics::expose(MetricRole role, TextBuf& out) const {
  std::string_view previous;
  for (std::size_t index = 0; index < values_.size(); ++index) {
    const MetricInfo& info = kMetrics[index];
    if (info.role != MetricRole::kBoth && info.role != role) continue;
    if (info.name != previous) {
      out.append("# HELP ");
      out.append(info.name);
      out.append(' ');
      out.append(info.help);
      out.append("\n# TYPE ");
      out.append(info.name);
      out.append(info.kind == MetricKind::kCounter ? " counter\n" : " gauge\n");
      previous = info.name;
    }
    out.append(info.name);
    if (!info.labels.empty()) {
      out.append('{');
      out.append(info.labels);
      out.append('}');
    }
    out.append(' ');
    out.append_unsigned(values_[index]);
    out.append('\n');
  }
}

}  // namespace cm

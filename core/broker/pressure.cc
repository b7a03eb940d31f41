// pressure.cc — what a broker does when its disk fills: tells, refuses what grows, keeps
// delivering. Holds:  80 % of the admission bound is told; from 95 % on nothing that stays is
// accepted (507,
//         `insufficient_storage`, transient to a daemon); at 100 % not even what a member says of
//         itself. Pushes, acks, receipts and deletes go on in the reserve, so mail that leaves
//         makes the room by which it ends.
// Source: design/delivery.md, "Disk"; core/base/pressure.h.
// Not:    measuring (store/store.cc), commits that fail for lack of room (load.cc, abandon()).
#include "core/base/pressure.h"

#include "core/broker/broker.h"

namespace cm::broker {

// Once an iteration; says something only when the step changes.
void Broker::watch_disk() {
  const std::uint32_t percent = batch().fill_percent();
  const Pressure now = pressure_of(percent, pressure_);
  metrics_.set(Metric::kBrokerPressureLevel, static_cast<std::uint64_t>(now));
  if (now == pressure_) return;
  const bool is_worse = now > pressure_;
  pressure_ = now;
  constexpr std::string_view kMeanings[] = {"there is room again",
                                            "new messages are refused from 95 % on",
                                            "new messages are refused; deliveries go on",
                                            "nothing new is kept; deliveries go on in the reserve"};
  const std::string_view meaning = kMeanings[static_cast<std::size_t>(now)];
  const std::string_view remedy = "lower history_days_max or raise store_bound_bytes";
  if (is_worse) {
    env_.log->warn(
        "disk_pressure",
        {{"level", text_of(now)}, {"percent", percent}, {"meaning", meaning}, {"remedy", remedy}});
  } else {
    env_.log->info("disk_pressure",
                   {{"level", text_of(now)}, {"percent", percent}, {"meaning", meaning}});
  }
}

// For what would stay in the store. `what` begins the sentence.
Status Broker::check_disk(std::string_view what) {
  if (batch().admits() && pressure_ < Pressure::kRefusing) return {};
  return fail(Err::kDiskFull, std::string(what) + " is refused: the broker's store is " +
                                  std::to_string(batch().fill_percent()) +
                                  " % full; retried until there is room");
}

}  // namespace cm::broker

// node.cc — the parts that both roles have.
#include "tests/sim/node.h"

#include <cerrno>

#include "core/base/check.h"
#include "core/crypto/random.h"

namespace cm::sim {
namespace {

void keep_line(void* context, std::string_view line) {
  const Parts& parts = *static_cast<const Parts*>(context);
  std::string text = parts.name + " log ";
  text += line;
  parts.journal.add(text);
}

std::uint64_t log_time(void* context) { return static_cast<const Parts*>(context)->env.wall_ms; }

}  // namespace

Parts::Parts(std::string_view name_, Journal& journal_, const Plan& plan, store::Role role,
             const std::string& directory, std::uint64_t bound_bytes)
    : limits(plan.limits),
      name(name_),
      journal(journal_),
      log(keep_line, log_time, this, LogLevel::kInfo) {
  store::Options options;
  options.directory = directory;
  options.role = role;
  if (bound_bytes != 0) {
    limits.store_bound_bytes = bound_bytes;
    options.reserve_bytes = plan.store_reserve_bytes;
  }
  options.bound_bytes = limits.store_bound_bytes;
  options.durability = store::Durability::kRelaxed;
  auto opened = store::Store::open(options, scratch);
  CHECK(opened);
  store = std::move(*opened);
  store->set_commit_fault(
      [](void* context) { return static_cast<const Parts*>(context)->commit_fails_ ? ENOSPC : 0; },
      this);
  env.rng = crypto::fill_random;
  env.log = &log;
  env.batch = &store->batch();
}

}  // namespace cm::sim

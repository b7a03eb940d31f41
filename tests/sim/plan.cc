// plan.cc — the drawing of a plan.
#include "tests/sim/plan.h"

namespace cm::sim {

Plan draw_plan(Rng& rng) {
  Plan plan;
  const auto sometimes = [&](std::uint32_t per_mille, std::uint32_t least, std::uint32_t most) {
    return rng.chance(per_mille) ? static_cast<std::uint32_t>(rng.between(least, most)) : 0;
  };
  plan.daemons = rng.chance(150) ? 3 : 2;
  plan.crash = sometimes(700, 2, 40);
  plan.commit_failure = sometimes(500, 2, 60);
  plan.slow_read = sometimes(300, 50, 900);
  plan.cut = sometimes(700, 1, 10);
  plan.half_open = sometimes(500, 1, 10);
  plan.stall = sometimes(400, 1, 5);
  plan.wall_jump = sometimes(400, 1, 5);
  plan.block = sometimes(400, 1, 5);
  plan.partition = sometimes(300, 1, 3);
  plan.fault_every_ms = rng.between(200, 20'000);
  plan.delay_most_ms = rng.chance(300) ? rng.between(100, 8'000) : rng.between(1, 30);
  plan.send_every_ms = rng.chance(300) ? rng.between(500, 4'000) : rng.between(2, 200);
  plan.long_pause = sometimes(500, 5, 60);
  plan.long_absence = sometimes(500, 100, 600);
  plan.big_bodies = sometimes(500, 5, 100);

  Limits& limits = plan.limits;
  limits.store_bound_bytes = std::uint64_t{256} << 20;
  limits.secret_slots_max = 4;
  limits.box_keys_max = rng.chance(300) ? 1 : 8;
  if (rng.chance(300)) limits.claim_rows_max = static_cast<std::uint32_t>(rng.between(1, 6));
  if (rng.chance(200)) limits.claim_bytes_max = static_cast<std::uint32_t>(rng.between(600, 6'000));
  if (rng.chance(200)) limits.queue_rows_max = static_cast<std::uint32_t>(rng.between(2, 12));
  if (rng.chance(100)) limits.outbox_rows_max = static_cast<std::uint32_t>(rng.between(4, 20));
  if (rng.chance(200)) limits.parked_sends_max = static_cast<std::uint32_t>(rng.between(1, 3));
  if (rng.chance(300)) limits.iteration_rows_max = static_cast<std::uint32_t>(rng.between(1, 5));
  if (rng.chance(300))
    limits.payload_bytes_max = static_cast<std::uint32_t>(rng.between(900, 4'000));
  limits.ipc_streams_max = 3;
  limits.undelivered_days_max = 30;  // clocks jump by up to 200 hours; no mail may expire by that
  // What the broker advertises is what its daemons assumed before they asked.
  limits.frame_bytes_max = limits.payload_bytes_max;
  // Last, so that seeds of earlier versions keep what they had.
  if (rng.chance(150)) {
    limits.rate_burst = static_cast<std::uint32_t>(rng.between(2, 20));
    limits.rate_per_minute = static_cast<std::uint32_t>(rng.between(30, 600));
  }
  if (rng.chance(150)) {
    limits.queue_pair_rows_max = static_cast<std::uint32_t>(rng.between(2, 12));
  }
  if (rng.chance(100)) limits.queue_sender_bytes_max = rng.between(4'000, 40'000);
  if (rng.chance(150)) {
    limits.iteration_effect_bytes_max = static_cast<std::uint32_t>(rng.between(200, 5'000));
  }
  if (rng.chance(100)) {
    limits.member_reply_bytes_max = static_cast<std::uint32_t>(rng.between(500, 20'000));
  }
  return plan;
}

}  // namespace cm::sim

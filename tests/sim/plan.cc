// plan.cc — the drawing of a plan.
#include "tests/sim/plan.h"

#include <algorithm>

namespace cm::sim {

namespace {

// Behind everything is drawn, so that the numbers of a run do not shift more than they have to.
void take_away(Plan& plan) {
  const auto zero = [&](Fault fault, auto& member) {
    if (!plan.may(fault)) member = 0;
  };
  zero(Fault::kCommitFails, plan.commit_failure);
  zero(Fault::kSlowCommit, plan.slow_commit);
  zero(Fault::kSlowReads, plan.slow_read);
  zero(Fault::kCut, plan.cut);
  zero(Fault::kHalfOpen, plan.half_open);
  zero(Fault::kStall, plan.stall);
  zero(Fault::kBlocked, plan.block);
  zero(Fault::kUnreachable, plan.partition);
  zero(Fault::kSlowConsumer, plan.slow_consumer);
  zero(Fault::kGaveUp, plan.gave_up);
  zero(Fault::kLongAbsence, plan.long_absence);
  zero(Fault::kPidReuse, plan.pid_reuse);
  zero(Fault::kDuplicate, plan.duplicate);
  zero(Fault::kReorder, plan.reorder);
  zero(Fault::kLateFrame, plan.late);
  zero(Fault::kForgedAck, plan.forged_ack);
  zero(Fault::kOneByteReads, plan.byte_wires);
  if (!plan.may(Fault::kChangedCiphertext) && !plan.may(Fault::kMismatchedFingerprint)) {
    plan.tamper = 0;
  }
  if (!plan.may(Fault::kDelay)) plan.delay_most_ms = 2;
  if (!plan.may(Fault::kClockForward) && !plan.may(Fault::kClockBack)) plan.wall_jump = 0;
  plan.legacy_broker = plan.legacy_broker && plan.may(Fault::kLegacyBroker);
  plan.legacy_client = plan.legacy_client && plan.may(Fault::kLegacyClient);
  if (!plan.may(Fault::kSession)) plan.sessions = 0;
  plan.twin = plan.twin && plan.may(Fault::kTwinIdentity);
  if (!plan.may(Fault::kFullMap)) plan.store_reserve_bytes = 0;
  if (!plan.may(Fault::kFullStore)) plan.daemon_store_bytes = plan.broker_store_bytes = 0;
  const std::uint32_t least = plan.twin ? 3 : 2;  // a twin needs somebody to write to
  plan.daemons = std::max(least, std::min(plan.daemons, plan.bounds.daemons_max));
}

}  // namespace

Plan draw_plan(Rng& rng, const Bounds& bounds) {
  Plan plan;
  plan.bounds = bounds;
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
  plan.slow_commit = sometimes(250, 5, 200);
  plan.slow_consumer = sometimes(250, 1, 10);
  if (rng.chance(200)) {
    limits.slow_consumer_hard_bytes = static_cast<std::uint32_t>(rng.between(800, 6'000));
  }
  plan.pid_reuse = sometimes(200, 300, 900);
  plan.duplicate = sometimes(300, 5, 200);
  plan.reorder = sometimes(250, 5, 300);
  plan.late = sometimes(300, 100, 900);
  plan.tamper = sometimes(100, 5, 120);
  plan.forged_ack = sometimes(250, 20, 200);
  plan.byte_wires = sometimes(200, 300, 1000);
  plan.legacy_broker = rng.chance(80);
  plan.legacy_client = rng.chance(200);
  plan.liar = rng.chance(250);
  plan.twin = rng.chance(60);
  plan.twins_may_stay = rng.chance(400) && plan.twin;
  if (rng.chance(60)) plan.daemon_store_bytes = rng.between(160'000, 400'000);
  if (rng.chance(60)) plan.broker_store_bytes = rng.between(250'000, 600'000);
  if (rng.chance(500)) plan.store_reserve_bytes = rng.between(20'000, 200'000);
  plan.gave_up = sometimes(200, 1, 3);
  plan.requests_max = static_cast<std::uint32_t>(rng.between(60, 260));
  plan.report_level = static_cast<std::uint32_t>(rng.below(3));
  plan.drops = sometimes(500, 5, 80);
  plan.requeues = sometimes(500, 5, 150);
  // A link that waits to be opened again is there when an iteration is abandoned.
  if (plan.gave_up != 0) plan.commit_failure = std::max(plan.commit_failure, 30u);
  // What ends by time needs clocks that jump, and somebody who is away meanwhile.
  const bool ages = rng.chance(150);
  if (ages) limits.outbox_age_hours_max = static_cast<std::uint32_t>(rng.between(20, 100));
  plan.mail_expires = rng.chance(150) && plan.may(Fault::kExpiredMail);
  if (plan.mail_expires) limits.undelivered_days_max = 1;
  if (ages || plan.mail_expires) {
    plan.wall_jump = 20;
    plan.partition = std::max(plan.partition, 2u);
    plan.crash = std::max(plan.crash, 30u);
    plan.long_absence = std::max(plan.long_absence, 300u);
    plan.fault_every_ms = std::min<std::uint64_t>(plan.fault_every_ms, 2'000);
  }
  if (plan.mail_expires) {
    // Mail is looked at once an hour, and at each start: long runs, and mail that waits.
    plan.liar = true;
    plan.late = 900;
    // Either the broker starts often, or its hour ends amid the run.
    plan.crash = rng.chance(400) ? std::max(plan.crash, 60u) : 0;
    if (plan.crash == 0) {
      plan.broker_age_ms = 3'600'000 - rng.between(5'000, 60'000);
      plan.send_every_ms = rng.between(300, 1'500);
      plan.delay_most_ms = rng.between(2'000, 8'000);
      plan.fault_every_ms = rng.between(200, 1'000);
      plan.long_pause = 10;
      plan.wall_jump = 0;  // an id is never of an earlier time than the one before
    }
    plan.slow_consumer = std::max(plan.slow_consumer, 8u);
    plan.half_open = std::max(plan.half_open, 8u);
  }
  plan.sessions = sometimes(300, 1, 3);
  if (rng.chance(50)) {  // a crowd
    plan.daemons = static_cast<std::uint32_t>(rng.between(4, 8));
    plan.sessions = static_cast<std::uint32_t>(rng.below(9));
  }
  // Drawn aside, so that a seed without it is the run that it was.
  Rng aside(Rng(rng).next() ^ 3);
  if (aside.chance(350) && !plan.liar && !plan.legacy_broker && plan.tamper == 0) {
    plan.multicast = static_cast<std::uint32_t>(aside.between(20, 500));
  }
  take_away(plan);
  plan.requests_max = std::min(plan.requests_max, plan.bounds.requests_max);
  return plan;
}

}  // namespace cm::sim

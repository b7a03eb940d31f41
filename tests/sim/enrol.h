// enrol.h — a mesh and its members, made by the broker's own routes before anything can fail.
// Owns:   Enrolment: the first member makes the mesh, the others join by its invite.
// Not:    what they do then (world.h, small_world.cc).
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/node.h"

namespace cm::sim {

class Enrolment {
 public:
  explicit Enrolment(BrokerNode& broker) : broker_(broker) {}
  // The next member, called `number` by the simulation and "peer-<number>" by others.
  Identity join(std::uint64_t now_ms, std::uint32_t number);

 private:
  BrokerNode& broker_;
  Identity first_;
  std::string token_;  // of the invite
};

}  // namespace cm::sim

// ids.h — handle types that cross folders without their tables.
// Owns:   ConnRef, the handle of a network connection.
// Why:    the cores name a connection in events and effects, yet never see core/net.
// Not:    the tables themselves (core/net/server.h), durable ids (ulid.h).
#pragma once

#include "core/base/table.h"

namespace cm {

// A connection of net::Server. Stale after it closed: calls with it are ignored.
using ConnRef = Ref<struct ConnTag>;

}  // namespace cm

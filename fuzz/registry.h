// registry.h — the one list of fuzz targets, and the macro that names a harness.
// Owns:   CM_FUZZ_TARGETS. CMakeLists.txt and run.sh read its rows: keep one row a line.
// Holds:  a harness is compiled twice: as libFuzzer's entry point (preset `fuzz`), and under a
//         name of its own for fuzz_replay, which runs every seed in every other build.
// Why:    a target that one of the two does not know would silently not run.
// Not:    `canary`, which must crash; CMakeLists.txt adds it to the preset `fuzz` alone.
#pragma once

#include <cstddef>
#include <cstdint>

// X(target, the library it is linked against, longest input in bytes)
#define CM_FUZZ_TARGETS(X)        \
  X(frame, cm_wire, 16384)        \
  X(envelope, cm_wire, 16384)     \
  X(invite, cm_wire, 8192)        \
  X(ipc_send, cm_wire, 16384)     \
  X(jcs, cm_wire, 8192)           \
  X(row, cm_store, 4096)          \
  X(http, cm_net_sansio, 20000)   \
  X(ws, cm_net_sansio, 8192)      \
  X(config, cm_cli, 8192)         \
  X(cli, cm_cli, 2048)            \
  X(broker, cm_broker, 4096)      \
  X(sse, cm_daemon, 2048)         \
  X(daemon, cm_daemon, 4096)      \
  X(hello, cm_broker, 4096)       \
  X(plugin, cm_plugin_host, 2048) \
  X(url, cm_cli, 2048)            \
  X(server, cm_net, 4096)

// CM_FUZZ_TARGET(frame) { ... uses data, size ... return 0; }
#ifdef CM_FUZZ_ENGINE
#define CM_FUZZ_TARGET(target) \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
#else
#define CM_FUZZ_TARGET(target) \
  extern "C" int cm_fuzz_##target(const std::uint8_t* data, std::size_t size)
#endif

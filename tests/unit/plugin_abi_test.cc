// plugin_abi_test.cc — the layout of every struct of the ABI against its baseline.
// Holds:  a change of size, order or alignment fails here. Within version 1 nothing may move; new
//         members go behind the last one, and then the baseline is changed with the version.
// Why:    plugins are built by others, once, and loaded for years.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "plugins/include/claudemesh/peer_transport.h"

namespace {

#if defined(__x86_64__)

class Dump {
 public:
  void begin(const char* name, std::size_t size, std::size_t align) {
    text_ += std::string(name) + " size " + std::to_string(size) + " align " +
             std::to_string(align) + "\n";
  }
  void member(const char* name, std::size_t offset, std::size_t size) {
    text_ += "  " + std::to_string(offset) + " +" + std::to_string(size) + " " + name + "\n";
  }
  void constant(const char* name, long long value) {
    text_ += std::string(name) + " " + std::to_string(value) + "\n";
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

#define ABI_STRUCT(type) dump.begin(#type, sizeof(type), alignof(type))
#define ABI_MEMBER(type, name) dump.member(#name, offsetof(type, name), sizeof(type::name))
#define ABI_CONSTANT(name) dump.constant(#name, static_cast<long long>(name))

std::string abi_text() {
  Dump dump;
  ABI_CONSTANT(CM_ABI_VERSION);
  ABI_STRUCT(cm_span);
  ABI_MEMBER(cm_span, data);
  ABI_MEMBER(cm_span, size);
  ABI_STRUCT(cm_frame);
  ABI_MEMBER(cm_frame, struct_size);
  ABI_MEMBER(cm_frame, kind);
  ABI_MEMBER(cm_frame, data);
  ABI_STRUCT(cm_setting);
  ABI_MEMBER(cm_setting, key);
  ABI_MEMBER(cm_setting, value);
  ABI_STRUCT(cm_target);
  ABI_MEMBER(cm_target, struct_size);
  ABI_MEMBER(cm_target, setting_count);
  ABI_MEMBER(cm_target, settings);
  ABI_MEMBER(cm_target, address);
  ABI_STRUCT(cm_listen);
  ABI_MEMBER(cm_listen, struct_size);
  ABI_MEMBER(cm_listen, setting_count);
  ABI_MEMBER(cm_listen, settings);
  ABI_MEMBER(cm_listen, address);
  ABI_STRUCT(cm_transport);
  ABI_MEMBER(cm_transport, struct_size);
  ABI_MEMBER(cm_transport, abi_version);
  ABI_MEMBER(cm_transport, kind);
  ABI_MEMBER(cm_transport, version);
  ABI_MEMBER(cm_transport, capabilities);
  ABI_MEMBER(cm_transport, reserved);
  ABI_MEMBER(cm_transport, max_message_bytes);
  ABI_MEMBER(cm_transport, open);
  ABI_MEMBER(cm_transport, listen);
  ABI_MEMBER(cm_transport, unlisten);
  ABI_MEMBER(cm_transport, send);
  ABI_MEMBER(cm_transport, note);
  ABI_MEMBER(cm_transport, heartbeat);
  ABI_MEMBER(cm_transport, close);
  ABI_MEMBER(cm_transport, settled);
  ABI_MEMBER(cm_transport, resume);
  ABI_MEMBER(cm_transport, config_schema);
  ABI_STRUCT(cm_host);
  ABI_MEMBER(cm_host, struct_size);
  ABI_MEMBER(cm_host, abi_version);
  ABI_MEMBER(cm_host, state);
  ABI_MEMBER(cm_host, deliver);
  ABI_MEMBER(cm_host, incoming);
  ABI_MEMBER(cm_host, sent);
  ABI_MEMBER(cm_host, writable);
  ABI_MEMBER(cm_host, get_service);
  ABI_STRUCT(cm_fd_v1);
  ABI_MEMBER(cm_fd_v1, struct_size);
  ABI_MEMBER(cm_fd_v1, reserved);
  ABI_MEMBER(cm_fd_v1, watch);
  ABI_MEMBER(cm_fd_v1, change);
  ABI_MEMBER(cm_fd_v1, unwatch);
  ABI_STRUCT(cm_timer_v1);
  ABI_MEMBER(cm_timer_v1, struct_size);
  ABI_MEMBER(cm_timer_v1, reserved);
  ABI_MEMBER(cm_timer_v1, now_ms);
  ABI_MEMBER(cm_timer_v1, start);
  ABI_MEMBER(cm_timer_v1, cancel);
  ABI_STRUCT(cm_log_v1);
  ABI_MEMBER(cm_log_v1, struct_size);
  ABI_MEMBER(cm_log_v1, reserved);
  ABI_MEMBER(cm_log_v1, write);
  ABI_STRUCT(cm_config_v1);
  ABI_MEMBER(cm_config_v1, struct_size);
  ABI_MEMBER(cm_config_v1, reserved);
  ABI_MEMBER(cm_config_v1, get);
  ABI_STRUCT(cm_random_v1);
  ABI_MEMBER(cm_random_v1, struct_size);
  ABI_MEMBER(cm_random_v1, reserved);
  ABI_MEMBER(cm_random_v1, fill);
  ABI_STRUCT(cm_metrics_v1);
  ABI_MEMBER(cm_metrics_v1, struct_size);
  ABI_MEMBER(cm_metrics_v1, reserved);
  ABI_MEMBER(cm_metrics_v1, add);
  ABI_CONSTANT(CM_OK);
  ABI_CONSTANT(CM_WOULD_BLOCK);
  ABI_CONSTANT(CM_E_INVALID);
  ABI_CONSTANT(CM_E_TOO_BIG);
  ABI_CONSTANT(CM_E_CLOSED);
  ABI_CONSTANT(CM_E_UNSUPPORTED);
  ABI_CONSTANT(CM_E_NO_MEMORY);
  ABI_CONSTANT(CM_E_SYSTEM);
  ABI_CONSTANT(CM_E_DISABLED);
  ABI_CONSTANT(CM_FRAME_CONTROL);
  ABI_CONSTANT(CM_FRAME_ENVELOPE);
  ABI_CONSTANT(CM_PEER_CONNECTING);
  ABI_CONSTANT(CM_PEER_CONNECTED);
  ABI_CONSTANT(CM_PEER_CLOSED);
  ABI_CONSTANT(CM_NOTE_READY);
  ABI_CONSTANT(CM_NOTE_AUTH_FAILED);
  ABI_CONSTANT(CM_SENT_HANDED);
  ABI_CONSTANT(CM_SENT_DROPPED);
  ABI_CONSTANT(CM_SETTLED_OK);
  ABI_CONSTANT(CM_SETTLED_RETRY);
  ABI_CONSTANT(CM_SETTLED_REFUSED);
  ABI_CONSTANT(CM_CAP_P2P);
  ABI_CONSTANT(CM_CAP_BIDIRECTIONAL);
  ABI_CONSTANT(CM_CAP_MID_TURN_PUSH);
  ABI_CONSTANT(CM_CAP_STREAMING_CHUNKS);
  ABI_CONSTANT(CM_FD_READ);
  ABI_CONSTANT(CM_FD_WRITE);
  ABI_CONSTANT(CM_LOG_DEBUG);
  ABI_CONSTANT(CM_LOG_INFO);
  ABI_CONSTANT(CM_LOG_WARN);
  ABI_CONSTANT(CM_LOG_ERROR);
  return dump.text();
}

TEST(PluginAbi, every_layout_and_constant_is_that_of_the_baseline) {
  std::ifstream file(std::string(CM_TESTS_DIR) + "/../plugins/abi_baseline.txt");
  const std::string baseline((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(abi_text(), baseline);
}

#endif

}  // namespace

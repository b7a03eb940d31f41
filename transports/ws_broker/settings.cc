// settings.cc — reads the target of open() and the plugin's section of the configuration.
// Why:    a setting of the one peer wins over the section.
#include "transports/ws_broker/settings.h"

#include <charconv>

#include "core/base/arena.h"
#include "core/net/url.h"

namespace cm::ws_broker {
namespace {

constexpr std::string_view kMaxFrameBytes = "max_frame_bytes";
constexpr std::string_view kCaFile = "ca_file";
constexpr std::size_t kPathMax = 4096;
constexpr std::uint32_t kFrameBytesMin = 1024;

constexpr std::string_view kBadSize = "setting 'max_frame_bytes': 1024 to 16777216";
constexpr std::string_view kBadCaFile = "setting 'ca_file': a path of 1 to 4096 bytes";

bool parse_frame_bytes(std::string_view text, std::uint32_t& out) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= kFrameBytesMin &&
         out <= kFrameBytesMax;
}

// Empty, or what is wrong with it.
std::string_view take_setting(std::string_view key, std::string_view value, Settings& out) {
  if (key == kMaxFrameBytes) {
    return parse_frame_bytes(value, out.max_frame_bytes) ? std::string_view() : kBadSize;
  }
  if (key != kCaFile) return "the settings of ws-broker are 'max_frame_bytes' and 'ca_file'";
  const bool sound =
      !value.empty() && value.size() <= kPathMax && value.find('\0') == std::string_view::npos;
  if (!sound) return kBadCaFile;
  out.ca_file = value;
  return {};
}

cm_status refuse(std::string& reason, std::string_view sentence) {
  reason = sentence;
  return CM_E_INVALID;
}

}  // namespace

const char kSettingsSchema[] =
    R"({"type":"object","additionalProperties":false,"properties":{"max_frame_bytes":)"
    R"({"type":"integer","minimum":1024,"maximum":16777216,"default":16777216},)"
    R"("ca_file":{"type":"string","minLength":1,"maxLength":4096}}})";

cm_status parse_settings(const Services& services, const cm_target& target, Settings& out,
                         std::string& reason) {
  for (const std::string_view key : {kMaxFrameBytes, kCaFile}) {
    cm_span value{};
    if (services.config == nullptr ||
        services.config->get(services.host, span_of(key), &value) != CM_OK) {
      continue;
    }
    const std::string_view fault = take_setting(key, text_of(value), out);
    if (!fault.empty()) return refuse(reason, fault);
  }
  for (std::uint32_t index = 0; index < target.setting_count; ++index) {
    const cm_setting& setting = target.settings[index];
    const std::string_view fault = take_setting(text_of(setting.key), text_of(setting.value), out);
    if (!fault.empty()) return refuse(reason, fault);
  }
  const auto url = net::url_parse(text_of(target.address));
  if (!url || (url->scheme != net::Scheme::kWs && url->scheme != net::Scheme::kWss)) {
    return refuse(reason,
                  "the broker's address is not of the form ws://host[:port]/path "
                  "or wss://host[:port]/path");
  }
  out.secure = url->secure();
  ScratchArena arena(4096);
  TextBuf host(arena);
  net::url_append_host(host, *url);
  out.host_header = host.view();
  out.host = url->host;
  out.target = url->target;
  out.port = url->port;
  return CM_OK;
}

}  // namespace cm::ws_broker

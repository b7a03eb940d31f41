// settings.cc — reads the target of open() and the plugin's section of the configuration.
// Why:    a setting of the one peer wins over the section.
#include "transports/ws_broker/settings.h"

#include <charconv>

#include "core/base/arena.h"
#include "core/net/url.h"

namespace cm::ws_broker {
namespace {

constexpr std::string_view kMaxFrameBytes = "max_frame_bytes";
constexpr std::uint32_t kFrameBytesMin = 1024;

bool parse_frame_bytes(std::string_view text, std::uint32_t& out) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= kFrameBytesMin &&
         out <= kFrameBytesMax;
}

cm_status refuse(std::string& reason, std::string_view sentence) {
  reason = sentence;
  return CM_E_INVALID;
}

}  // namespace

const char kSettingsSchema[] =
    R"({"type":"object","additionalProperties":false,"properties":{"max_frame_bytes":)"
    R"({"type":"integer","minimum":1024,"maximum":16777216,"default":16777216}}})";

cm_status parse_settings(const Services& services, const cm_target& target, Settings& out,
                         std::string& reason) {
  constexpr std::string_view kBadSize = "setting 'max_frame_bytes': 1024 to 16777216";
  cm_span value{};
  if (services.config != nullptr &&
      services.config->get(services.host, span_of(kMaxFrameBytes), &value) == CM_OK &&
      !parse_frame_bytes(text_of(value), out.max_frame_bytes)) {
    return refuse(reason, kBadSize);
  }
  for (std::uint32_t index = 0; index < target.setting_count; ++index) {
    const cm_setting& setting = target.settings[index];
    if (text_of(setting.key) != kMaxFrameBytes) {
      return refuse(reason, "the only setting of ws-broker is 'max_frame_bytes'");
    }
    if (!parse_frame_bytes(text_of(setting.value), out.max_frame_bytes)) {
      return refuse(reason, kBadSize);
    }
  }
  const auto url = net::url_parse(text_of(target.address));
  if (!url || (url->scheme != net::Scheme::kWs && url->scheme != net::Scheme::kWss)) {
    return refuse(reason, "the broker's address is not of the form ws://host[:port]/path");
  }
  if (url->secure()) {
    reason = "wss:// is not supported by this version: TLS is not built in yet";
    return CM_E_UNSUPPORTED;
  }
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

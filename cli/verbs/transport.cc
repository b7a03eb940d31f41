// transport.cc — transport list: loads plugins as the daemon would and shows the outcome.
// Source: design/transports.md, "Loading".
#include "cli/output.h"
#include "cli/plugin_dirs.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"
#include "plugins/host/load.h"

namespace cm::cli {
namespace {

std::string capabilities(std::uint32_t bits) {
  constexpr std::pair<std::uint32_t, const char*> kNames[] = {
      {CM_CAP_P2P, "p2p"},
      {CM_CAP_BIDIRECTIONAL, "bidirectional"},
      {CM_CAP_MID_TURN_PUSH, "mid-turn-push"},
      {CM_CAP_STREAMING_CHUNKS, "streaming-chunks"}};
  std::string text;
  for (const auto& [bit, name] : kNames) {
    if ((bits & bit) != 0) text += (text.empty() ? "" : ",") + std::string(name);
  }
  return text;
}

std::string abi_text(const plugins::PluginInfo& info) {
  return std::to_string(info.abi_major) + "." + std::to_string(info.abi_minor);
}

}  // namespace

int run_transport_list() {
  ScratchArena scratch;
  TextBuf text(scratch, 2048);
  wire::JsonWriter json(text);
  json.begin_object().key("transports").begin_array();
  std::vector<std::vector<std::string>> rows;
  std::size_t refused = 0;
  for (const std::string& folder : plugin_dirs()) {
    for (const plugins::PluginFile& file : plugins::load_folder(folder, trust_sticky_dirs())) {
      const plugins::PluginInfo& info = file.info;
      const bool usable = file.transport != nullptr;
      refused += usable ? 0 : 1;
      json.begin_object().field("path", info.path).field("loaded", usable);
      json.field("sha256", info.sha256).field("kind", info.kind).field("version", info.version);
      json.field("abi", abi_text(info)).field("capabilities", capabilities(info.capabilities));
      json.field("max_message_bytes", info.max_message_bytes);
      json.nullable_field("refusal", info.refusal).end_object();
      rows.push_back({usable ? "✔" : "✘", bold(info.kind), info.version, "ABI " + abi_text(info),
                      capabilities(info.capabilities), dim(info.sha256.substr(0, 16)), info.path});
      if (!usable) rows.back() = {"✘", info.path, harmless(info.refusal)};
    }
  }
  json.end_array().end_object();
  if (output().json) {
    print_json(text.view());
  } else {
    print_table(rows);
    if (rows.empty()) say("no plugin directory was found; set CLAUDEMESH_PLUGIN_DIR");
  }
  return refused == 0 ? 0 : info_of(Err::kPluginRefused).exit_code;
}

}  // namespace cm::cli

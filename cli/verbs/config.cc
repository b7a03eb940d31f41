// config.cc — config, config path, config check: the daemon's settings as it would start.
// Holds:  what is shown is what `daemon up` with the same flags would use, read the same way.
// Not:    reading settings (settings.cc), joined meshes (mesh.cc).
#include <unistd.h>

#include "cli/output.h"
#include "cli/place.h"
#include "cli/settings.h"
#include "cli/verbs.h"
#include "core/base/arena.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

void write_place(wire::JsonWriter& json, const PlaceFound& found) {
  json.key("place").begin_object().field("name", defaults_of(found.place).name);
  json.nullable_field("mark", found.mark).end_object();
  json.key("places").begin_array();
  for (const PlaceDefaults& row : place_table()) {
    json.begin_object().field("name", row.name).field("tcp", row.tcp);
    json.field("keeps_host_identity", row.keeps_host_identity).field("why", row.why).end_object();
  }
  json.end_array();
}

void print_settings_json(const Settings& settings, const PlaceFound& found) {
  ScratchArena scratch(16 << 10);
  TextBuf text(scratch, 4096);
  wire::JsonWriter json(text);
  json.begin_object().field("path", settings_path());
  json.field("exists", ::access(settings_path().c_str(), F_OK) == 0);
  write_place(json, found);
  json.key("settings").begin_array();
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const auto setting = static_cast<Setting>(index);
    const SettingValue& value = settings.at(setting);
    json.begin_object().field("name", name_of(setting));
    json.nullable_field("value", value.text).field("origin", text_of(value.origin));
    json.nullable_field("where", value.where).field("reloads", info_of(setting).reloads);
    json.end_object();
  }
  for (const LimitValue& limit : settings.limits) {
    json.begin_object().field("name", "limits." + limit.name);
    json.field("value", std::to_string(limit.value)).field("origin", text_of(limit.origin));
    json.field("where", limit.where).field("reloads", false).end_object();
  }
  json.end_array().end_object();
  print_json(text.view());
}

void print_settings(const Settings& settings, const PlaceFound& found) {
  const bool exists = ::access(settings_path().c_str(), F_OK) == 0;
  print("  " + settings_path() + (exists ? "" : dim(" (no such file: all defaults)")));
  std::vector<std::vector<std::string>> rows;
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const auto setting = static_cast<Setting>(index);
    const SettingValue& value = settings.at(setting);
    rows.push_back({bold(name_of(setting)), value.text.empty() ? "-" : harmless(value.text),
                    std::string(text_of(value.origin)), dim(value.where)});
  }
  for (const LimitValue& limit : settings.limits) {
    rows.push_back({bold("limits." + limit.name), std::to_string(limit.value),
                    std::string(text_of(limit.origin)), dim(limit.where)});
  }
  print_table(rows);
  print("\n  Defaults by place; here: " + bold(defaults_of(found.place).name) +
        (found.mark.empty() ? "" : " (" + found.mark + ")"));
  rows.clear();
  for (const PlaceDefaults& row : place_table()) {
    rows.push_back({std::string(row.name), row.tcp ? "TCP on" : "TCP off",
                    row.keeps_host_identity ? "host identity kept" : "host identity ephemeral",
                    dim(row.why)});
  }
  print_table(rows);
  say("SIGHUP and 'claudemesh daemon reload' apply public_health, allowed_origins and "
      "legacy_broker; the "
      "rest "
      "waits for 'claudemesh daemon restart'");
}

}  // namespace

int run_config() {
  const auto settings = load_settings(daemon_flags());
  if (!settings) return report(settings.error());
  const PlaceFound found = find_place();
  if (output().json) {
    print_settings_json(*settings, found);
  } else {
    print_settings(*settings, found);
  }
  return 0;
}

int run_config_path() {
  if (!output().json) {
    print(settings_path());
    return 0;
  }
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_object().field("path", settings_path());
  json.field("exists", ::access(settings_path().c_str(), F_OK) == 0).end_object();
  print_json(text.view());
  return 0;
}

int run_config_check() {
  const auto settings = load_settings({});
  if (!settings) return report(settings.error());
  if (output().json) {
    print_json(R"({"ok":true})");
  } else {
    say_done(settings_path() + (::access(settings_path().c_str(), F_OK) == 0
                                    ? " is understood"
                                    : " does not exist: all defaults"));
  }
  return 0;
}

}  // namespace cm::cli

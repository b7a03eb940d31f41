// settings.h — the daemon's settings: flags, environment, config.toml and defaults, in that order.
// Owns:   the table of settings, Settings (each value with where it came from), reading a file.
// Holds:  what is not understood is an error that names file, line and key; a text is taken as a
//         whole or not at all. config.toml holds no secret, so others may read it; what others
//         may write is refused.
// Why:    one table gives the key, the variable, the flag, the check and the help of a setting.
// Limits: a file of at most 64 KiB.
// Source: spec/ipc.md §10 ("Config"); spec/decisions.md, "Negotiation", "Limits".
// Not:    config.json (config.h), the broker, what a setting does (daemon_setup.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/place.h"
#include "core/base/limits.h"
#include "core/base/result.h"

namespace CLI {
class App;
}

namespace cm::cli {

enum class Setting : std::uint8_t {
  kDurability,
  kLogFile,
  kCaFile,
  kTcp,
  kTcpPort,
  kHttpBind,
  kHttpExternalAuth,
  kPublicHealth,
  kAllowedOrigins,
  kOutboxMaxAgeHours,
  kTombstoneBytes,
  kLegacyBroker,
  kReceiptLevel,
  kClonePolicy,
  kCount
};
constexpr std::size_t kSettingCount = static_cast<std::size_t>(Setting::kCount);

enum class SettingType : std::uint8_t { kWord, kPath, kAddress, kSwitch, kNumber, kOrigins };

struct SettingInfo {
  std::string_view section, key;
  SettingType type;
  std::string_view words;            // of kWord: "sync|relaxed"
  std::int64_t least = 0, most = 0;  // of kNumber
  std::string_view fallback;         // as text; empty: none
  const char* environment;           // null: none
  const char* flag;                  // null: none
  const char* flag_means;            // the value that a flag without one stands for; else null
  bool reloads;                      // SIGHUP and POST /v1/reload apply it
  const char* about;                 // help of the flag
};
const SettingInfo& info_of(Setting setting) noexcept;
std::vector<std::string> words_of(const std::string& text);  // between spaces
std::string name_of(Setting setting);                        // "ipc.tcp_port"
// The text in its one form, or nothing; and the words of what would have been right.
std::optional<std::string> check_setting(Setting setting, const std::string& text);
std::string expected_setting(Setting setting);

enum class Origin : std::uint8_t { kDefault, kPlace, kFile, kEnvironment, kFlag };
std::string_view text_of(Origin origin) noexcept;

// A value that has passed its check.
struct SettingValue {
  std::string text;
  Origin origin = Origin::kDefault;
  std::string where;  // "config.toml:12", "CLAUDEMESH_TCP", "--no-tcp", the mark of a place
};
struct LimitValue {
  std::string name;
  std::uint64_t value = 0;
  Origin origin = Origin::kFile;
  std::string where;
};

struct Settings {
  std::array<SettingValue, kSettingCount> values;
  std::vector<LimitValue> limits;  // one a name

  const SettingValue& at(Setting setting) const noexcept {
    return values[static_cast<std::size_t>(setting)];
  }
  const std::string& text(Setting setting) const noexcept { return at(setting).text; }
  bool is_on(Setting setting) const noexcept { return text(setting) == "true"; }
  std::int64_t number(Setting setting) const noexcept;  // 0 when it has no value
  void apply_limits(Limits& limits_of_role) const;
};

// What a command line said; nothing is set where it was silent.
struct FlagValues {
  std::array<std::optional<std::string>, kSettingCount> values;
  std::vector<std::string> limits;  // NAME=VALUE

  // As words of another command line.
  std::vector<std::string> words() const;
};
// Declares the flag of every setting that has one, and --limit. `flags` outlives the app.
void declare_settings(CLI::App& app, FlagValues& flags);
// Those of `daemon up` or `config` in this command line (verbs/daemon.cc).
const FlagValues& daemon_flags();

// --- the parts, pure ---

Settings default_settings(const PlaceFound& place);
// kMalformed: "PATH:LINE: ...: expected ..., got ...". Nothing is changed then.
Status read_settings_text(std::string_view toml, const std::string& path, Settings& settings);
// kInvalidArgument names the variable. Nothing is changed then. An empty variable is none.
Status read_settings_environment(const Lookup& environment, Settings& settings);
Status read_settings_flags(const FlagValues& flags, Settings& settings);
// What only the whole can tell: a port that was named means TCP; an address that is open to others
// needs its second word; no age of the outbox is above every window of dedupe; the limits fit into
// the memory budget.
Status settle_settings(Settings& settings);

// --- all of it ---

std::string settings_path();  // <config dir>/config.toml
// kForbidden if others may write the file, kTooBig, kIo; each names it. No file is as good as an
// empty one; a link is followed and its target judged, one that leads nowhere is kIo.
Result<Settings> load_settings(const FlagValues& flags);

// Those that differ and wait for a restart.
std::vector<std::string> waiting_for_restart(const Settings& running, const Settings& wanted);

}  // namespace cm::cli

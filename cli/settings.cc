// settings.cc — the table of settings, its checks, and the four places that values come from.
#include "cli/settings.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "cli/files.h"
#include "cli/limit_option.h"
#include "core/base/check.h"

namespace cm::cli {
namespace {

using Type = SettingType;

constexpr std::size_t kFileMax = 64 << 10;
constexpr std::size_t kPathMax = 4'095;
constexpr std::size_t kOriginsMax = 16;
constexpr std::size_t kOriginMax = 300;
// The window of a broker by default. Its own one is compared when it names it; with a permanent one
// the most is 720 (core/daemon/features.cc; design/delivery.md, "Age").
constexpr std::int64_t kAgeHoursCap = 365 * 24 - 1;

constexpr SettingInfo kTable[kSettingCount] = {
    {"daemon", "durability", Type::kWord, "sync|relaxed", 0, 0, "sync", "CLAUDEMESH_DURABILITY",
     "--durability", nullptr, false, "sync: a commit survives power loss; relaxed: kill -9 only"},
    {"daemon", "log_file", Type::kPath, "", 0, 0, "", "CLAUDEMESH_LOG_FILE", "--log-file", nullptr,
     false, "Append JSON lines here; SIGHUP opens it again. In the foreground: stdout"},
    {"daemon", "ca_file", Type::kPath, "", 0, 0, "", "CLAUDEMESH_CA_FILE", "--ca-file", nullptr,
     false, "PEM file of the CA that signed the broker's certificate, beside the system's"},
    {"ipc", "tcp", Type::kSwitch, "", 0, 0, "", "CLAUDEMESH_TCP", "--no-tcp", "false", false,
     "Serve the unix socket alone"},
    {"ipc", "tcp_port", Type::kNumber, "", 0, 65'535, "47823", "CLAUDEMESH_TCP_PORT", "--tcp-port",
     nullptr, false, "Port on the loopback, 0 for any (default 47823; none in containers and CI)"},
    {"ipc", "http_bind", Type::kAddress, "", 0, 0, "127.0.0.1", "CLAUDEMESH_HTTP_BIND",
     "--http-bind", nullptr, false,
     "Another address than the loopback; needs --http-external-auth"},
    {"ipc", "http_external_auth", Type::kSwitch, "", 0, 0, "false", "CLAUDEMESH_HTTP_EXTERNAL_AUTH",
     "--http-external-auth", "true", false, "Something before this daemon protects --http-bind"},
    {"ipc", "public_health", Type::kSwitch, "", 0, 0, "false", "CLAUDEMESH_PUBLIC_HEALTH",
     "--public-health", "true", true, "GET /v1/health without a token on TCP"},
    {"ipc", "allowed_origins", Type::kOrigins, "", 0, 0, "", nullptr, nullptr, nullptr, true,
     "Pages that may call the HTTP API, such as http://localhost:3000, with spaces between"},
    {"outbox", "max_age_hours", Type::kNumber, "", 1, 876'000, "",
     "CLAUDEMESH_OUTBOX_MAX_AGE_HOURS", "--outbox-max-age-hours", nullptr, false,
     "Undelivered messages older than this are dead (default: by the broker, within its window)"},
    {"outbox", "tombstone_bytes", Type::kNumber, "", 1 << 20, std::int64_t{1} << 40, "1073741824",
     nullptr, nullptr, nullptr, false,
     "Disk for the ids of past messages, which are kept for good; full, it stops new sends"},
    {"features", "legacy_broker", Type::kWord, "allow|refuse", 0, 0, "allow",
     "CLAUDEMESH_LEGACY_BROKER", "--refuse-legacy-broker", "refuse", true,
     "Leave brokers that cannot negotiate features (close 4010)"},
    {"receipts", "level", Type::kWord, "stored|handed|seen", 0, 0, "handed",
     "CLAUDEMESH_RECEIPT_LEVEL", "--receipt-level", nullptr, true,
     "How far senders see it: stored at the broker, handed to this machine, or seen"},
    {"clone", "policy", Type::kWord, "refuse|warn|allow", 0, 0, "refuse", nullptr, nullptr, nullptr,
     false, "What a store that was made on another host means"},
};

bool is_word_of(std::string_view words, std::string_view text) {
  while (!words.empty()) {
    const std::size_t bar = std::min(words.find('|'), words.size());
    if (words.substr(0, bar) == text) return true;
    words.remove_prefix(std::min(bar + 1, words.size()));
  }
  return false;
}

bool is_address(const std::string& text) {
  in6_addr room;
  return ::inet_pton(AF_INET, text.c_str(), &room) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &room) == 1;
}

// "http://host:port" or https, in lower case, as browsers write an Origin; "null" is nobody's.
bool is_origin(std::string_view text) {
  const std::string_view scheme = text.starts_with("https://") ? "https://" : "http://";
  if (!text.starts_with(scheme) || text.size() == scheme.size() || text.size() > kOriginMax) {
    return false;
  }
  return text.substr(scheme.size())
             .find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-:[]") ==
         std::string_view::npos;
}

bool are_origins(const std::string& text) {
  const auto origins = words_of(text);
  return origins.size() <= kOriginsMax &&
         std::all_of(origins.begin(), origins.end(),
                     [](const auto& one) { return is_origin(one); });
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return {};
  return value;
}

std::string expected_of(const SettingInfo& info) {
  switch (info.type) {
    case Type::kWord: {
      std::string list(info.words);
      for (std::size_t at = 0; (at = list.find('|', at)) != std::string::npos; at += 4) {
        list.replace(at, 1, " or ");
      }
      return list;
    }
    case Type::kPath: return "a path of at most 4095 bytes";
    case Type::kAddress: return "an IPv4 or IPv6 address";
    case Type::kOrigins:
      return "at most 16 origins like http://localhost:3000, in lower case, separated by spaces, "
             "or a list of them";
    case Type::kSwitch: return "true or false";
    case Type::kNumber:
      return "a whole number from " + std::to_string(info.least) + " to " +
             std::to_string(info.most);
  }
  return {};
}

// The text in its one form, or nothing.
std::optional<std::string> checked(const SettingInfo& info, const std::string& text) {
  switch (info.type) {
    case Type::kWord:
      if (!text.empty() && is_word_of(info.words, text)) return text;
      return {};
    case Type::kPath:
      if (text.empty() || text.size() > kPathMax || text.find('\0') != std::string::npos) return {};
      return text;
    case Type::kAddress:
      if (text.find('\0') == std::string::npos && is_address(text)) return text;
      return {};
    case Type::kOrigins:
      if (are_origins(text)) return text;
      return {};
    case Type::kSwitch:
      if (text == "true" || text == "1") return "true";
      if (text == "false" || text == "0") return "false";
      return {};
    case Type::kNumber: {
      const auto value = whole_number(text);
      if (!value || *value < info.least || *value > info.most) return {};
      return std::to_string(*value);
    }
  }
  return {};
}

// For an error: a long or binary value is not repeated.
std::string shown(const std::string& text) {
  return text.size() <= 80 ? "'" + text + "'" : std::to_string(text.size()) + " bytes";
}

// Nobody else may say what a daemon does; root could replace the file anyway.
bool is_trusted(const struct stat& info) {
  const bool ours = info.st_uid == ::geteuid() || info.st_uid == 0;
  return S_ISREG(info.st_mode) && ours && (info.st_mode & 022) == 0;
}

// The text of config.toml, empty if there is none. A link is followed and its target is judged.
Result<std::string> read_settings_file(const std::string& path) {
  // Without waiting for the other end, should it be a pipe.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info {};
  if (fd < 0) {
    if (errno == ENOENT && ::lstat(path.c_str(), &info) != 0) return std::string();
    return fail(Err::kIo, path + ": expected a readable file: " + std::strerror(errno));
  }
  const bool trusted = ::fstat(fd, &info) == 0 && is_trusted(info);
  const std::string opened = "/proc/self/fd/" + std::to_string(fd);
  auto text = trusted ? read_file(opened, kFileMax) : Result<std::string>(std::string());
  ::close(fd);
  if (!trusted) {
    return fail(Err::kUnsafeMode, path +
                                      ": expected a regular file of yours that nobody else may "
                                      "write; 'chmod go-w' makes it so");
  }
  if (text) return text;
  if (text.code() != Err::kTooBig) return text.error();
  return fail(Err::kTooBig, path + ": expected at most " + std::to_string(kFileMax) + " bytes");
}

Setting setting_at(std::size_t index) { return static_cast<Setting>(index); }

}  // namespace

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; (at = text.find_first_not_of(' ', at)) != std::string::npos;) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

const SettingInfo& info_of(Setting setting) noexcept {
  return kTable[static_cast<std::size_t>(setting)];
}

std::string name_of(Setting setting) {
  return std::string(info_of(setting).section) + "." + std::string(info_of(setting).key);
}

std::optional<std::string> check_setting(Setting setting, const std::string& text) {
  return checked(info_of(setting), text);
}

std::string expected_setting(Setting setting) { return expected_of(info_of(setting)); }

std::string_view text_of(Origin origin) noexcept {
  switch (origin) {
    case Origin::kDefault: return "default";
    case Origin::kPlace: return "place";
    case Origin::kFile: return "file";
    case Origin::kEnvironment: return "environment";
    case Origin::kFlag: return "flag";
  }
  return "default";
}

std::int64_t Settings::number(Setting setting) const noexcept {
  return whole_number(text(setting)).value_or(0);
}

void Settings::apply_limits(Limits& limits_of_role) const {
  for (const LimitValue& limit : limits) {
    // Each was set before, in a Limits of its own.
    CHECK(set_limit(limit.name, limit.value, limits_of_role));
  }
}

std::vector<std::string> FlagValues::words() const {
  std::vector<std::string> list;
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const SettingInfo& info = kTable[index];
    if (!values[index] || info.flag == nullptr) continue;
    list.push_back(info.flag_means != nullptr ? std::string(info.flag)
                                              : std::string(info.flag) + "=" + *values[index]);
  }
  for (const std::string& limit : limits) list.push_back("--limit=" + limit);
  return list;
}

void declare_settings(CLI::App& app, FlagValues& flags) {
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const SettingInfo& info = kTable[index];
    if (info.flag == nullptr) continue;
    std::optional<std::string>& value = flags.values[index];
    if (info.flag_means != nullptr) {
      app.add_flag_callback(
          info.flag, [&value, &info] { value = info.flag_means; }, info.about);
      continue;
    }
    app.add_option_function<std::string>(
           info.flag, [&value](const std::string& text) { value = text; }, info.about)
        ->check([&info](const std::string& text) {
          return checked(info, text) ? std::string()
                                     : "expected " + expected_of(info) + ", got " + shown(text);
        });
  }
  app.add_option("--limit", flags.limits, "Another capacity, NAME=VALUE; may be repeated")
      ->take_all();
}

Settings default_settings(const PlaceFound& place) {
  Settings settings;
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    settings.values[index].text = kTable[index].fallback;
  }
  SettingValue& tcp = settings.values[static_cast<std::size_t>(Setting::kTcp)];
  tcp.text = defaults_of(place.place).tcp ? "true" : "false";
  if (place.place != Place::kMachine) {
    tcp.origin = Origin::kPlace;
    tcp.where = place.mark;
  }
  return settings;
}

Status read_settings_environment(const Lookup& environment, Settings& settings) {
  Settings read = settings;
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const SettingInfo& info = kTable[index];
    const char* text = info.environment != nullptr ? environment(info.environment) : nullptr;
    if (text == nullptr || *text == '\0') continue;
    auto value = checked(info, text);
    if (!value) {
      return fail(Err::kInvalidArgument, std::string(info.environment) + ": expected " +
                                             expected_of(info) + ", got " + shown(text));
    }
    read.values[index] = {std::move(*value), Origin::kEnvironment, info.environment};
  }
  settings = std::move(read);
  return {};
}

Status read_settings_flags(const FlagValues& flags, Settings& settings) {
  Settings read = settings;
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    if (!flags.values[index]) continue;
    auto value = checked(kTable[index], *flags.values[index]);
    if (!value) {
      return fail(Err::kUsage, std::string(kTable[index].flag) + ": expected " +
                                   expected_of(kTable[index]) + ", got " +
                                   shown(*flags.values[index]));
    }
    read.values[index] = {std::move(*value), Origin::kFlag, kTable[index].flag};
  }
  for (const std::string& assignment : flags.limits) {
    Limits scratch;
    auto limit = read_limit(assignment, scratch);
    if (!limit) return limit.error();
    std::erase_if(read.limits, [&](const LimitValue& old) { return old.name == limit->first; });
    read.limits.push_back({limit->first, limit->second, Origin::kFlag, "--limit"});
  }
  settings = std::move(read);
  return {};
}

Status settle_settings(Settings& settings) {
  SettingValue& tcp = settings.values[static_cast<std::size_t>(Setting::kTcp)];
  const SettingValue& port = settings.at(Setting::kTcpPort);
  if (port.origin > tcp.origin && port.origin > Origin::kPlace) {
    tcp = {"true", port.origin, port.where};
  }
  const SettingValue& bind = settings.at(Setting::kHttpBind);
  const bool loopback = bind.text == "127.0.0.1" || bind.text == "::1";
  if (!loopback && !settings.is_on(Setting::kHttpExternalAuth)) {
    const bool flag = bind.origin == Origin::kFlag;
    return fail(Err::kForbidden, bind.where + ": " + (flag ? "" : "http_bind ") + bind.text +
                                     " is open to others; it needs " +
                                     (flag ? "--http-external-auth" : "http_external_auth") +
                                     " as well");
  }
  // Above this no permanent window of a broker would allow it; what a window of days allows is
  // compared when the broker names it.
  const SettingValue& age = settings.at(Setting::kOutboxMaxAgeHours);
  if (settings.number(Setting::kOutboxMaxAgeHours) > kAgeHoursCap) {
    return fail(Err::kInvalidArgument,
                age.where + ": outbox_max_age_above_dedupe_window: expected at most " +
                    std::to_string(kAgeHoursCap) + " hours, got " + age.text);
  }
  Limits limits;
  settings.apply_limits(limits);
  if (const std::uint64_t total = daemon_bill(limits).total(); total > limits.memory_budget_bytes) {
    return fail(Err::kInvalidArgument, "limits: they add up to " + std::to_string(total) +
                                           " bytes, more than memory_budget_bytes, " +
                                           std::to_string(limits.memory_budget_bytes));
  }
  return {};
}

std::string settings_path() { return config_dir() + "/config.toml"; }

Result<Settings> load_settings(const FlagValues& flags) {
  Settings settings = default_settings(find_place());
  const std::string path = settings_path();
  const auto text = read_settings_file(path);
  if (!text) return text.error();
  if (Status read = read_settings_text(*text, path, settings); !read) return read.error();
  if (Status read = read_settings_environment(process_environment, settings); !read) {
    return read.error();
  }
  if (Status read = read_settings_flags(flags, settings); !read) return read.error();
  if (Status settled = settle_settings(settings); !settled) return settled.error();
  return settings;
}

std::vector<std::string> waiting_for_restart(const Settings& running, const Settings& wanted) {
  std::vector<std::string> names;
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    if (kTable[index].reloads || running.values[index].text == wanted.values[index].text) continue;
    names.push_back(name_of(setting_at(index)));
  }
  const auto value_of = [](const Settings& settings, const std::string& name) {
    for (const LimitValue& limit : settings.limits) {
      if (limit.name == name) return std::optional(limit.value);
    }
    return std::optional<std::uint64_t>();
  };
  for (const auto& [one, other] : {std::pair(&running, &wanted), std::pair(&wanted, &running)}) {
    for (const LimitValue& limit : one->limits) {
      const std::string name = "limits." + limit.name;
      if (value_of(*other, limit.name) == limit.value) continue;
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

}  // namespace cm::cli

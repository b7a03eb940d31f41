// settings_file.cc — the text of config.toml, by toml++.
// Holds:  exceptions of the parser end here. Every value is checked by the table in settings.cc.
// Source: the TOML 1.0 specification.
// Not:    finding the file and its mode (settings.cc).
#include <toml++/toml.h>

#include <algorithm>

#include "cli/limit_option.h"
#include "cli/output.h"
#include "cli/settings.h"

namespace cm::cli {
namespace {

constexpr std::string_view kLimitsSection = "limits";
constexpr std::size_t kShownMax = 80;

std::string shown(std::string_view text) {
  const std::string clean = harmless(text);
  return clean.size() <= kShownMax ? "'" + clean + "'" : std::to_string(text.size()) + " bytes";
}

std::string kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "a list";
    case toml::node_type::string: return "the text " + shown(node.as_string()->get());
    case toml::node_type::integer: return "the number " + std::to_string(node.as_integer()->get());
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean:
      return node.as_boolean()->get() ? "true (without quotes)" : "false (without quotes)";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time: return "a date or time";
    case toml::node_type::none: break;
  }
  return "nothing";
}

// A list of texts as one, with spaces between; an element that holds one is none.
std::optional<std::string> words_of_list(const toml::node& node) {
  const toml::array* list = node.as_array();
  if (list == nullptr) return {};
  std::string text;
  for (const toml::node& each : *list) {
    const auto* word = each.as_string();
    if (word == nullptr || word->get().empty() || word->get().find(' ') != std::string::npos) {
      return {};
    }
    text += (text.empty() ? "" : " ") + word->get();
  }
  return text;
}

class Reader {
 public:
  Reader(const std::string& path, Settings& settings) : path_(path), settings_(settings) {}

  Status read(const toml::table& file) {
    for (const auto& [key, node] : file) {
      const std::string_view name = key.str();
      if (!is_section(name)) {
        return bad(key.source(),
                   "there is no section " + shown(name) + "; there are: " + joined_sections());
      }
      const toml::table* section = node.as_table();
      if (section == nullptr) {
        return bad(key.source(),
                   "expected the section [" + std::string(name) + "], got " + kind_of(node));
      }
      for (const auto& [inner, value] : *section) {
        const Status done = name == kLimitsSection ? limit(inner, value) : one(name, inner, value);
        if (!done) return done;
      }
    }
    return {};
  }

 private:
  Error bad(const toml::source_region& region, const std::string& sentence) const {
    return fail(Err::kMalformed, where(region) + ": " + sentence);
  }
  std::string where(const toml::source_region& region) const {
    return path_ + ":" + std::to_string(region.begin.line);
  }

  static bool is_section(std::string_view name) {
    if (name == kLimitsSection) return true;
    for (std::size_t index = 0; index < kSettingCount; ++index) {
      if (info_of(static_cast<Setting>(index)).section == name) return true;
    }
    return false;
  }
  static std::string joined_sections() {
    std::string list;
    std::string_view last;
    for (std::size_t index = 0; index < kSettingCount; ++index) {
      const std::string_view section = info_of(static_cast<Setting>(index)).section;
      if (section != last) list += "[" + std::string(section) + "], ";
      last = section;
    }
    return list + "[limits]";
  }

  Status one(std::string_view section, const toml::key& key, const toml::node& node) {
    std::string known;
    for (std::size_t index = 0; index < kSettingCount; ++index) {
      const SettingInfo& info = info_of(static_cast<Setting>(index));
      if (info.section != section) continue;
      if (info.key == key.str()) return assign(static_cast<Setting>(index), key, node);
      known += (known.empty() ? "" : ", ") + std::string(info.key);
    }
    return bad(key.source(), "[" + std::string(section) + "] has no key " + shown(key.str()) +
                                 "; there are: " + known);
  }

  Status assign(Setting setting, const toml::key& key, const toml::node& node) {
    const SettingInfo& info = info_of(setting);
    std::optional<std::string> text;
    if (info.type == SettingType::kSwitch) {
      if (const auto* value = node.as_boolean()) text = value->get() ? "true" : "false";
    } else if (info.type == SettingType::kNumber) {
      if (const auto* value = node.as_integer()) text = std::to_string(value->get());
    } else if (const auto* value = node.as_string()) {
      text = value->get();
    } else if (info.type == SettingType::kOrigins) {
      text = words_of_list(node);
    }
    auto checked = text ? check_setting(setting, *text) : std::nullopt;
    // A daemon has no folder of its own that a relative path could be meant from.
    const bool relative = checked && info.type == SettingType::kPath && !checked->starts_with('/');
    if (!checked || relative) {
      const std::string expected =
          relative ? "a path that begins with /" : expected_setting(setting);
      return bad(key.source(), "[" + std::string(info.section) + "] " + std::string(info.key) +
                                   ": expected " + expected + ", got " + kind_of(node));
    }
    settings_.values[static_cast<std::size_t>(setting)] = {std::move(*checked), Origin::kFile,
                                                           where(key.source())};
    return {};
  }

  Status limit(const toml::key& key, const toml::node& node) {
    const std::string name(key.str());
    const auto* value = node.as_integer();
    if (value == nullptr || value->get() < 0) {
      return bad(key.source(), "[limits] " + shown(name) +
                                   ": expected a whole number that is not negative, got " +
                                   kind_of(node));
    }
    Limits scratch;
    const auto amount = static_cast<std::uint64_t>(value->get());
    if (Status set = set_limit(name, amount, scratch); !set) {
      return bad(key.source(), "[limits] " + set.error().detail);
    }
    settings_.limits.push_back({name, amount, Origin::kFile, where(key.source())});
    return {};
  }

  const std::string& path_;
  Settings& settings_;
};

}  // namespace

Status read_settings_text(std::string_view text, const std::string& path, Settings& settings) {
  if (text.find('\0') != std::string_view::npos) {
    return fail(Err::kMalformed, path + ": it holds a NUL byte; expected TOML");
  }
  try {
    const toml::table file = toml::parse(text, path);
    Settings read = settings;
    if (Status done = Reader(path, read).read(file); !done) return done;
    settings = std::move(read);
  } catch (const toml::parse_error& error) {
    return fail(Err::kMalformed, path + ":" + std::to_string(error.source().begin.line) +
                                     ": expected TOML: " + harmless(error.description()));
  }
  return {};
}

}  // namespace cm::cli

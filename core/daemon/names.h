// names.h — how display names are compared.
// Not:    who a name is (resolve.cc).
#pragma once

#include <string>
#include <string_view>

namespace cm::daemon {

// Names compare without regard to ASCII case; other letters compare as they are. What is equal
// here is one name in the table of known peers.
inline std::string fold_name(std::string_view name) {
  std::string folded(name);
  for (char& c : folded) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return folded;
}

}  // namespace cm::daemon

// probe.h — the line protocol of the conformance programs: words in, one answer out.
// Owns:   answer_lines(): each line of standard input is split at blanks and answered by a line.
// Holds:  byte strings are hex, an empty one is "-"; a malformed line ends the program with 2.
// Why:    foreign suites are driven from other languages, and thousands of cases share a process.
// Not:    the product's own reading of hex (core/crypto/encoding.h), which is under test.
#pragma once

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace cm::probe {

inline std::string bytes_of(std::string_view hex) {
  std::string out;
  if (hex == "-") return out;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    std::cerr << "not lower-case hex\n";
    std::exit(2);
  };
  if (hex.size() % 2 != 0) std::exit(2);
  for (std::size_t at = 0; at < hex.size(); at += 2) {
    out += static_cast<char>(digit(hex[at]) * 16 + digit(hex[at + 1]));
  }
  return out;
}

inline std::string hex_of(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  if (bytes.empty()) return "-";
  std::string out;
  for (const char c : bytes) {
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

// `answer` takes the words of a line and gives the line to print.
template <class Answer>
int answer_lines(Answer answer) {
  std::ios::sync_with_stdio(false);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::vector<std::string> list;
    for (std::string word; words >> word;) list.push_back(word);
    if (list.empty()) return 2;
    std::cout << answer(list) << '\n';
  }
  std::cout.flush();
  return 0;
}

}  // namespace cm::probe

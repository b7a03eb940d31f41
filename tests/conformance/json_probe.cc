// json_probe.cc — would our parser of frames accept this document? For JSONTestSuite.
// Owns:   lines of one hex document each on standard input: "yes", or "no" and why. With the name
//         of a file instead, its verdict is the exit status (0 or 1).
// Not:    the parser (core/wire/json_tape.h), the verdicts that we expect (part_json.py).
#include <fstream>

#include "core/base/arena.h"
#include "core/wire/json_tape.h"
#include "tests/conformance/probe.h"

int main(int count, char** arguments) {
  cm::ScratchArena scratch;
  cm::wire::JsonParser parser;
  const auto verdict = [&](const std::string& document) {
    cm::wire::JsonTape tape;
    const cm::Status parsed = parser.parse(document, scratch, tape);
    const std::string answer = parsed ? "yes" : "no " + parsed.error().detail;
    scratch.reset();
    return answer;
  };
  if (count == 2) {
    std::ifstream file(arguments[1], std::ios::binary);
    const std::string answer = verdict({std::istreambuf_iterator<char>(file), {}});
    std::cout << answer << '\n';
    return answer == "yes" ? 0 : 1;
  }
  return cm::probe::answer_lines([&](const std::vector<std::string>& words) {
    return verdict(cm::probe::bytes_of(words[0]));
  });
}

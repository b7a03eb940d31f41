// salvage.h — what a damaged store loses goes into a file first, where an operator finds it.
// Owns:   Dump, set_aside_inbox().
// Holds:  a dump is on disk before anything of it is removed. 0600, a JSON object a line: table,
// key
//         in hex, value in base64; never overwritten, because its name has the time.
// Source: design/delivery.md, "Start-up".
// Not:    what is damaged (store/recover.h), the verb (verbs/recover.cc).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cli/runtime.h"
#include "core/base/result.h"
#include "store/recover.h"

namespace cm::cli {

std::string file_stamp();  // the time of now, for the name of a file

class Dump {
 public:
  // `path` is not there yet.
  explicit Dump(std::string path) : path_(std::move(path)) {}
  ~Dump();
  Dump(const Dump&) = delete;
  Dump& operator=(const Dump&) = delete;

  // The file is made with the first value. A failure sticks.
  void add(const store::Repair& repair, Bytes value);
  // On disk, with its entry in the folder. kIo says why not.
  Status finish();
  std::uint64_t values() const noexcept { return values_; }
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
  std::uint64_t values_ = 0;
  Status status_;
};

// At start: rows of the inbox that cannot be read are written to <directory>/inbox-corrupt-<time>
// and removed; their dedupe keys stay, so that a redelivery of them is a duplicate. Counted and
// logged; `warning` becomes a sentence for the health route, or stays empty.
Status set_aside_inbox(Runtime& runtime, store::Store& store, const std::string& directory,
                       std::string& warning);

}  // namespace cm::cli

// salvage.cc — the dump file, and the inbox that is set aside at start.
#include "cli/salvage.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/output.h"
#include "core/base/time_text.h"
#include "core/crypto/encoding.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

Error errno_error(const std::string& what) {
  return fail(Err::kIo, what + ": " + std::strerror(errno));
}

Status sync_folder_of(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/'));
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno_error("cannot open " + folder);
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  return synced ? Status{} : Status{errno_error("cannot flush " + folder)};
}

}  // namespace

std::string file_stamp() {
  std::string name(view(iso_text(now_ms())));
  for (char& c : name) {
    if (c == ':' || c == '.') c = '-';
  }
  return name;
}

Dump::~Dump() {
  if (fd_ >= 0) ::close(fd_);
}

void Dump::add(const store::Repair& repair, Bytes value) {
  if (!status_) return;
  if (fd_ < 0) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd_ < 0) {
      status_ = errno_error("cannot create " + path_);
      return;
    }
  }
  ScratchArena arena;
  TextBuf line(arena, value.size() * 4 / 3 + 512);
  TextBuf encoded(arena, value.size() * 4 / 3 + 4);
  crypto::base64_append(value, encoded);
  wire::JsonWriter json(line);
  json.begin_object().field("table", store::info_of(repair.table).name);
  json.field("problem", repair.what).key("key").hex(repair.key);
  json.field("value", encoded.view()).end_object();
  line.append('\n');
  std::string_view rest = line.view();
  while (!rest.empty()) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      status_ = errno_error("cannot write " + path_);
      return;
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  ++values_;
}

Status Dump::finish() {
  if (!status_ || fd_ < 0) return status_;
  if (::fsync(fd_) != 0) return errno_error("cannot flush " + path_);
  return sync_folder_of(path_);
}

Status set_aside_inbox(Runtime& runtime, store::Store& store, const std::string& directory,
                       std::string& warning) {
  const std::vector<store::Repair> damaged = store::find_damaged_inbox(store.batch());
  store.abort();  // it only read
  if (damaged.empty()) return {};
  Dump dump(directory + "/inbox-corrupt-" + file_stamp() + ".dump");
  store::repair(store.batch(), damaged, store::kCorruptReason, now_ms(),
                [&](const store::Repair& repair, Bytes value) { dump.add(repair, value); });
  if (Status kept = dump.finish(); !kept) {
    store.abort();
    return kept;
  }
  if (store.commit() > store::CommitResult::kCommitted) {
    return fail(Err::kStoreFailed, store.last_error_text());
  }
  runtime.metrics.add(Metric::kDaemonInboxSetAside, dump.values());
  runtime.log.error("inbox_set_aside", {{"rows", dump.values()}, {"file", dump.path()}});
  warning = counted(static_cast<std::int64_t>(dump.values()), "received message") +
            " could not be read and was set aside in " + dump.path() +
            "; senders have been told that they arrived";
  return {};
}

}  // namespace cm::cli

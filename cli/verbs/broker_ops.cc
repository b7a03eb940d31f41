// broker_ops.cc — broker status, backup, restore, compact, rotate-admin-token.
// Holds:  a backup is taken while the broker runs and is one commit; it is checked before it is
//         called one. restore and compact need the broker stopped, keep what was there beside it,
//         and never leave less than one whole store. New files are 0600.
// Source: design/architecture.md, "Store"; design/presence.md, last section.
// Not:    running it (run_broker.cc), its admin verbs over HTTP (mesh.cc).
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <cstring>

#include "cli/files.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "core/base/time_text.h"
#include "core/crypto/random.h"
#include "core/net/socket.h"
#include "core/wire/json_writer.h"
#include "store/fsck.h"

namespace cm::cli {
namespace {

struct {
  std::string data, file, url, ca_file;
} g_options;

std::string data_dir() { return g_options.data.empty() ? broker_data_dir() : g_options.data; }

Error errno_error(const std::string& what) {
  return fail(Err::kIo, what + ": " + std::strerror(errno));
}

// What a running broker says of itself in <data>/broker.json (cli/run_broker.cc).
struct Running {
  bool running = false;
  Status readable;
  std::int64_t pid = 0;
  std::string url;
};

// Held by a broker as long as it lives: the file is only as true as the lock.
bool is_locked(const std::string& store) {
  const int fd = ::open((store + "/LOCK").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const bool taken = ::flock(fd, LOCK_EX | LOCK_NB) != 0;
  ::close(fd);
  return taken;
}

Running running_broker() {
  Running found;
  found.running = is_locked(data_dir() + "/store");
  if (!found.running) return found;
  // Its pid is sent signals: nobody else may have written it.
  auto text = read_private_file(data_dir() + "/broker.json", 64 << 10);
  if (!text && text.code() == Err::kUnsafeMode) found.readable = text.error();
  if (!text) return found;
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  if (!parser.parse(*text, scratch, tape)) return found;
  const wire::JsonNode* pid = tape.find("pid");
  if (pid != nullptr && pid->type == wire::JsonType::kInteger) found.pid = pid->integer;
  found.url = text_of(tape, tape.root(), "url");
  return found;
}

Status demand_stopped(std::string_view verb) {
  if (!is_locked(data_dir() + "/store")) return {};
  return fail(Err::kAlreadyRunning,
              "'broker " + std::string(verb) + "' needs the broker of " + data_dir() + " stopped");
}

Result<std::unique_ptr<store::Store>> open_read_only(const std::string& directory,
                                                     ScratchArena& scratch) {
  store::Options options;
  options.directory = directory;
  options.role = store::Role::kBroker;
  options.read_only = true;
  return store::Store::open(options, scratch);
}

// The store in `directory` is one, of this role and schema, and fsck finds nothing.
Status check_store(const std::string& directory, std::uint64_t& rows) {
  ScratchArena scratch;
  auto opened = open_read_only(directory, scratch);
  if (!opened) return opened.error();
  const Progress checking("checking the store");
  const store::FsckReport found =
      store::fsck((*opened)->batch(), store::Role::kBroker, [](auto, auto, auto) {});
  rows = found.rows;
  if (found.problems == 0) return {};
  return fail(Err::kCorrupt, std::to_string(found.problems) + " problems in " + directory);
}

// `name` is made anew, 0600; an existing file is never overwritten.
Result<int> create_file(const std::string& name) {
  const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd >= 0) return fd;
  if (errno == EEXIST) return fail(Err::kAlreadyExists, name + " is there already");
  return errno_error("cannot create " + name);
}

Status copy_store(const std::string& directory, const std::string& to) {
  ScratchArena scratch;
  auto opened = open_read_only(directory, scratch);
  if (!opened) return opened.error();
  const auto fd = create_file(to);
  if (!fd) return fd.error();
  const Progress copying("copying the store");
  Status copied = (*opened)->copy_to(*fd);
  if (copied && ::fsync(*fd) != 0) copied = errno_error("cannot flush " + to);
  ::close(*fd);
  if (!copied) remove_file(to);
  return copied;
}

Status copy_file(const std::string& from, const std::string& to) {
  const int in = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (in < 0) return errno_error("cannot read " + from);
  const auto out = create_file(to);
  if (!out) {
    ::close(in);
    return out.error();
  }
  Status done;
  for (;;) {
    const ssize_t moved = ::copy_file_range(in, nullptr, *out, nullptr, 1u << 30, 0);
    if (moved == 0) break;
    if (moved < 0) {
      done = errno_error("cannot copy " + from);
      break;
    }
  }
  if (done && ::fsync(*out) != 0) done = errno_error("cannot flush " + to);
  ::close(in);
  ::close(*out);
  return done;
}

std::string stamp() {
  std::string name(view(iso_text(now_ms())));
  for (char& c : name) {
    if (c == ':' || c == '.') c = '-';
  }
  return name;
}

std::uint64_t file_bytes(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

int print_file(std::string_view verb, const std::string& path, std::uint64_t rows) {
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", true).field("file", path);
    json.field("bytes", file_bytes(path)).field("rows", rows).end_object();
    print_json(text.view());
  } else {
    say_done(std::string(verb) + " " + path + " (" + std::to_string(rows) + " rows, " +
             std::to_string(file_bytes(path) >> 10) + " KiB)");
  }
  return 0;
}

// A copy of our own that an older version wrote becomes one of this version.
Status migrate_store(const std::string& directory) {
  ScratchArena scratch;
  store::Options options;
  options.directory = directory;
  options.role = store::Role::kBroker;
  const auto opened = store::Store::open(options, scratch);
  return opened ? Status{} : opened.error();
}

// Beside the store, so that a rename is enough to put it in place.
struct Scaffold {
  std::string path;
  ~Scaffold() {
    if (path.empty()) return;
    for (const char* name : {"/data.mdb", "/lock.mdb", "/LOCK"}) remove_file(path + name);
    ::rmdir(path.c_str());
  }
};

// Puts the data file of `scaffold` in place of the store's; the old one stays as `kept`.
Status swap_in(const Scaffold& scaffold, const std::string& kept) {
  const std::string store = data_dir() + "/store";
  if (Status made = make_private_dir(store); !made) return made;
  const std::string data = store + "/data.mdb";
  if (::link(data.c_str(), kept.c_str()) != 0 && errno != ENOENT) {
    return errno_error("cannot keep " + data + " as " + kept);
  }
  if (::rename((scaffold.path + "/data.mdb").c_str(), data.c_str()) != 0) {
    return errno_error("cannot put the new store in place");
  }
  remove_file(store + "/lock.mdb");
  return {};
}

}  // namespace

void declare_broker_data(CLI::App& app) {
  app.add_option("--data", g_options.data, "Data directory; ~/.claudemesh/broker by default");
}

void declare_broker_status(CLI::App& app) {
  declare_broker_data(app);
  app.add_option("--broker", g_options.url, "URL of a broker elsewhere, ws:// or wss://");
  declare_ca_file(app, g_options.ca_file);
}

int run_broker_status() {
  Running found;
  if (g_options.url.empty()) {
    found = running_broker();
    if (!found.running) {
      if (output().json) {
        print_json(R"({"running":false})");
      } else {
        say("no broker runs on " + data_dir());
      }
      return 1;
    }
    if (!found.readable) return report(found.readable.error());
    if (found.url.empty()) {
      return report(fail(Err::kUnavailable, "a broker holds " + data_dir() +
                                                " but did not say where it listens (yet)"));
    }
  } else {
    found.url = g_options.url;
  }
  const auto health = broker_call(found.url, "GET", "/health", {}, {}, g_options.ca_file);
  if (!health) return report(health.error());
  const auto ready = broker_call(found.url, "GET", "/health/ready", {}, {}, g_options.ca_file);
  const bool is_ready = static_cast<bool>(ready);
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("running", true);
    if (found.pid > 0) json.field("pid", found.pid);
    json.field("url", found.url).field("ready", is_ready);
    json.key("health").raw(health->body).end_object();
    print_json(text.view());
    return is_ready ? 0 : 1;
  }
  const auto number = [&](std::string_view key) {
    const wire::JsonNode* node = health->tape.find(key);
    return node == nullptr ? std::string("?") : std::to_string(node->integer);
  };
  std::vector<std::vector<std::string>> rows = {
      {"url", found.url},
      {"state", is_ready ? "ready" : "not ready: " + ready.error().detail},
      {"version", harmless(health->text("version"))},
      {"durability", harmless(health->text("durability"))},
      {"connections", number("connections")},
      {"queued", number("queued")},
      {"uptime", number("uptime") + " s"}};
  if (found.pid > 0) rows.insert(rows.begin() + 1, {"pid", std::to_string(found.pid)});
  print_table(rows);
  return is_ready ? 0 : 1;
}

void declare_broker_backup(CLI::App& app) {
  declare_broker_data(app);
  app.add_option("file", g_options.file, "File to write; claudemesh-broker-<time>.cmdb by default");
}

int run_broker_backup() {
  const std::string file =
      g_options.file.empty() ? "claudemesh-broker-" + stamp() + ".cmdb" : g_options.file;
  if (Status copied = copy_store(data_dir() + "/store", file); !copied) {
    return report(copied.error());
  }
  // A backup that was never read back is a hope.
  const Scaffold scaffold{data_dir() + "/verify-" + std::to_string(::getpid())};
  std::uint64_t rows = 0;
  Status checked = make_private_dir(scaffold.path);
  if (checked) checked = copy_file(file, scaffold.path + "/data.mdb");
  if (checked) checked = check_store(scaffold.path, rows);
  if (!checked) return report(checked.error());
  return print_file("backed up to", file, rows);
}

void declare_broker_restore(CLI::App& app) {
  declare_broker_data(app);
  app.add_option("file", g_options.file, "A file that 'broker backup' wrote")->required();
}

int run_broker_restore() {
  if (Status stopped = demand_stopped("restore"); !stopped) return report(stopped.error());
  if (Status made = make_private_dir(data_dir()); !made) return report(made.error());
  const Scaffold scaffold{data_dir() + "/restore-" + std::to_string(::getpid())};
  std::uint64_t rows = 0;
  Status done = make_private_dir(scaffold.path);
  if (done) done = copy_file(g_options.file, scaffold.path + "/data.mdb");
  if (done) done = check_store(scaffold.path, rows);
  // An older schema. Nothing else is opened for writing: of an empty file that would make a store.
  if (done.code() == Err::kUnavailable) {
    done = migrate_store(scaffold.path);
    if (done) done = check_store(scaffold.path, rows);
  }
  if (done.code() == Err::kNotFound) done = fail(Err::kCorrupt, g_options.file + " is empty");
  const std::string kept = data_dir() + "/store-before-restore-" + stamp() + ".cmdb";
  if (done) done = swap_in(scaffold, kept);
  if (!done) return report(done.error());
  if (file_bytes(kept) != 0) say("what was there is kept as " + kept);
  return print_file("restored", data_dir() + "/store/data.mdb", rows);
}

int run_broker_compact() {
  if (Status stopped = demand_stopped("compact"); !stopped) return report(stopped.error());
  const std::string data = data_dir() + "/store/data.mdb";
  const std::uint64_t before = file_bytes(data);
  const Scaffold scaffold{data_dir() + "/compact-" + std::to_string(::getpid())};
  std::uint64_t rows = 0;
  Status done = make_private_dir(scaffold.path);
  if (done) done = copy_store(data_dir() + "/store", scaffold.path + "/data.mdb");
  if (done) done = check_store(scaffold.path, rows);
  const std::string kept = data_dir() + "/store-before-compact-" + std::to_string(::getpid());
  if (done) done = swap_in(scaffold, kept);
  if (!done) return report(done.error());
  remove_file(kept);  // the same rows, in more pages
  say("it was " + std::to_string(before >> 10) + " KiB");
  return print_file("compacted", data, rows);
}

int run_broker_rotate_token() {
  struct stat folder {};
  if (::stat((data_dir() + "/store").c_str(), &folder) != 0) {
    return report(fail(Err::kNotFound, "no broker has its data in " + data_dir()),
                  "name its folder with --data; 'claudemesh broker up' makes a new one");
  }
  const Running found = running_broker();
  if (!found.readable) return report(found.readable.error());
  if (found.running && found.pid <= 0) {
    return report(fail(Err::kUnavailable, "a broker holds " + data_dir() +
                                              " but its pid is not known; nothing was changed"));
  }
  if (!crypto::initialise()) return report(fail(Err::kInternal, "no random source"));
  crypto::UrlToken token = crypto::url_token(crypto::fill_random);
  std::string line(token.data(), token.size());
  const std::string path = data_dir() + "/admin-token";
  if (Status made = make_private_dir(data_dir()); !made) return report(made.error());
  const Status written = write_private_file(path, line + "\n");
  wipe(line);
  if (!written) return report(written.error());
  // The broker reads the file again; it knows only its hash.
  if (found.running && ::kill(static_cast<pid_t>(found.pid), SIGHUP) != 0) {
    return report(errno_error("the new token is in " + path +
                              ", but the broker could not be told; restart it"));
  }
  if (output().json) {
    print_json(R"({"ok":true})");
  } else {
    say_done("the admin token is new; it is in " + path);
  }
  return 0;
}

}  // namespace cm::cli

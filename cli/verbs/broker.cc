// broker.cc — broker up, broker fsck, and the body that both fsck verbs share.
#include <sys/stat.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <optional>

#include "cli/files.h"
#include "cli/fsck.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/runtime.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"
#include "store/fsck.h"

namespace cm::cli {
namespace {

BrokerOptions g_options;

std::string hex(Bytes bytes) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return text;
}

}  // namespace

int run_fsck(const std::string& directory, store::Role role) {
  ScratchArena scratch;
  store::Options options;
  options.directory = directory;
  options.role = role;
  options.read_only = true;
  struct stat info {};
  if (::stat(directory.c_str(), &info) != 0 && errno == ENOENT) {
    return report(fail(Err::kNotFound, "there is no store in " + directory),
                  "it is made by the first start; is it another folder?");
  }
  auto opened = store::Store::open(options, scratch);
  if (!opened) return report(opened.error());
  TextBuf text(scratch, 4096);
  wire::JsonWriter json(text);
  json.begin_object().key("problems").begin_array();
  std::optional<Progress> checking("checking the store");
  const store::FsckReport found = store::fsck(
      (*opened)->batch(), role, [&](std::string_view table, std::string_view problem, Bytes key) {
        checking.reset();
        json.begin_object().field("table", table).field("problem", problem);
        json.field("key", hex(key)).end_object();
        if (!output().json) {
          print("  " + std::string(table) + ": " + std::string(problem) + "  " + dim(hex(key)));
        }
      });
  checking.reset();
  json.end_array().field("rows", found.rows).field("ok", found.problems == 0).end_object();
  if (output().json) {
    print_json(text.view());
  } else if (found.problems == 0) {
    say_done(std::to_string(found.rows) + " rows, no problem");
  } else {
    return report(fail(Err::kCorrupt, std::to_string(found.problems) + " problems in " +
                                          std::to_string(found.rows) + " rows"));
  }
  return found.problems == 0 ? 0 : info_of(Err::kCorrupt).exit_code;
}

void declare_broker_up(CLI::App& app) {
  app.add_option("--listen", g_options.listen, "Address and port; port 0 lets the system choose")
      ->capture_default_str();
  app.add_option("--data", g_options.data, "Data directory; ~/.claudemesh/broker by default");
  app.add_option("--public-url", g_options.public_url, "URL that invites carry");
  app.add_option("--durability", g_options.durability,
                 "sync: a commit survives power loss; relaxed: kill -9 only")
      ->check(CLI::IsMember({"sync", "relaxed"}))
      ->capture_default_str();
  app.add_option("--limit", g_options.limits,
                 "NAME=VALUE, again for more; 'claudemesh daemon limits' lists them");
  app.add_flag("--insecure-plaintext", g_options.insecure_plaintext,
               "Allow a listener off loopback without TLS");
  app.add_option("--tls-cert", g_options.tls_certificate,
                 "Certificate chain in PEM form: clients then use wss://; SIGHUP reads it again");
  app.add_option("--tls-key", g_options.tls_key, "Its key: a file of mode 0600 or 0400");
  app.add_option("--log-file", g_options.log_file,
                 "Append JSON lines here, not to stdout; SIGHUP opens it again");
}

int run_broker_up() { return run_broker(g_options); }

void declare_broker_fsck(CLI::App& app) {
  app.add_option("--data", g_options.data, "Data directory; ~/.claudemesh/broker by default");
}

int run_broker_fsck() {
  const std::string data = g_options.data.empty() ? broker_data_dir() : g_options.data;
  return run_fsck(data + "/store", store::Role::kBroker);
}

}  // namespace cm::cli

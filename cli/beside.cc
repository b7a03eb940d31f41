// beside.cc — looks for a reference daemon by its pid file and its socket.
#include "cli/beside.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string_view>

#include "cli/files.h"
#include "core/net/http_client.h"

namespace cm::cli {
namespace {

constexpr std::uint32_t kProbeMs = 2'500;
constexpr std::size_t kPidFileMax = 64;

std::string pid_path() { return daemon_dir() + "/daemon.pid"; }
std::string owner_path(const std::string& store_dir) { return store_dir + "/PID"; }

std::string text_of_file(const std::string& path) {
  auto text = read_file(path, kPidFileMax);
  if (!text) return {};
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  return *text;
}

pid_t pid_of(std::string_view text) {
  pid_t pid = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), pid);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? pid : 0;
}

}  // namespace

Status refuse_beside_reference(const std::string& store_dir) {
  const std::string text = text_of_file(pid_path());
  const pid_t pid = pid_of(text);
  const bool ours = !text.empty() && text == text_of_file(owner_path(store_dir));
  if (!ours && pid > 0 && pid != ::getpid() && (::kill(pid, 0) == 0 || errno == EPERM)) {
    const std::string number = std::to_string(pid);
    return fail(Err::kAlreadyRunning, "process " + number + " of " + pid_path() +
                                          " is another claudemesh daemon; stop it with 'kill " +
                                          number + "', or delete that file if it is none");
  }
  net::Endpoint endpoint;
  endpoint.unix_path = socket_path();
  const auto reply = net::http_call(endpoint, "GET", "/v1/version", {}, {}, kProbeMs);
  if (reply && reply->status == 200) {
    return fail(Err::kAlreadyRunning, "another claudemesh daemon answers on " + socket_path() +
                                          "; stop it with 'claudemesh daemon down'");
  }
  return {};
}

Status write_pid_file(const std::string& store_dir) {
  const std::string pid = std::to_string(::getpid());
  if (Status written = write_private_file(owner_path(store_dir), pid); !written) return written;
  return write_private_file(pid_path(), pid);
}

void remove_pid_file(const std::string& store_dir) {
  remove_file(pid_path());
  remove_file(owner_path(store_dir));
}

}  // namespace cm::cli

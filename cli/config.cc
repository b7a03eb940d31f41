// config.cc — reads config.json with the strict parser and rewrites it keeping what it does not
//             know.
#include "cli/config.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "cli/files.h"
#include "core/base/arena.h"
#include "core/wire/fields.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::cli {
namespace {

constexpr std::size_t kConfigMax = 4 << 20;
constexpr std::int64_t kConfigVersion = 1;

Status parse_mesh(const wire::JsonTape& tape, const wire::JsonNode& node, Mesh& mesh) {
  if (node.type != wire::JsonType::kObject) return fail(Err::kMalformed, "a mesh is an object");
  wire::FieldReader fields(tape, node);
  mesh.mesh_id = fields.broker_id("meshId");
  mesh.member_id = fields.broker_id("memberId");
  mesh.slug = fields.text("slug", wire::kLabelMax);
  mesh.name = fields.text("name", wire::kDisplayNameMax, wire::Need::kOptional);
  mesh.pubkey = fields.text("pubkey", 64);
  mesh.secret_key = fields.text("secretKey", 128);
  mesh.broker_url = fields.text("brokerUrl", wire::kUrlMax);
  mesh.joined_at = fields.text("joinedAt", wire::kLabelMax, wire::Need::kOptional);
  mesh.raw = node.text;
  if (fields.ok() && !wire::is_hex_key(mesh.pubkey)) {
    fields.refuse("pubkey", "64 lower-case hex digits");
  }
  return fields.take();
}

void write_mesh(const Mesh& mesh, wire::JsonWriter& json) {
  if (!mesh.raw.empty()) {
    json.raw(mesh.raw);
    return;
  }
  json.begin_object().field("meshId", mesh.mesh_id).field("memberId", mesh.member_id);
  json.field("slug", mesh.slug).field("name", mesh.name).field("pubkey", mesh.pubkey);
  json.field("secretKey", mesh.secret_key).field("brokerUrl", mesh.broker_url);
  json.field("joinedAt", mesh.joined_at).end_object();
}

}  // namespace

Mesh::~Mesh() {
  wipe(secret_key);
  wipe(raw);
}

const Mesh* ConfigFile::find(std::string_view slug_or_id) const noexcept {
  for (const Mesh& mesh : meshes) {
    if (mesh.slug == slug_or_id || mesh.mesh_id == slug_or_id) return &mesh;
  }
  return nullptr;
}

ConfigLock::~ConfigLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<ConfigLock> lock_config() {
  if (Status made = make_private_dir(config_dir()); !made) return made.error();
  const std::string path = config_dir() + "/LOCK";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0 || ::flock(fd, LOCK_EX) != 0) {
    if (fd >= 0) ::close(fd);
    return fail(Err::kIo, "cannot lock " + path);
  }
  return ConfigLock(fd);
}

Result<ConfigFile> load_config(const Warn& warn) {
  const std::string path = config_dir() + "/config.json";
  if (Status safe = make_private(config_dir(), warn); !safe) return safe.error();
  auto text = read_private_file(path, kConfigMax, warn);
  if (!text) {
    if (text.code() != Err::kNotFound) return text.error();
    ConfigFile none;
    none.path = path;
    return none;
  }
  auto config = parse_config(*text, path);
  wipe(*text);
  return config;
}

Result<ConfigFile> parse_config(std::string_view text, const std::string& path) {
  ConfigFile config;
  config.path = path;
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  const auto refuse = [&](const Error& error) {
    scratch.wipe();
    return fail(Err::kMalformed, path + ": " + error.detail);
  };
  if (Status parsed = parser.parse(text, scratch, tape); !parsed) return refuse(parsed.error());
  const wire::JsonNode& root = tape.root();
  if (root.type != wire::JsonType::kObject) {
    return refuse(fail(Err::kMalformed, "expected one JSON object"));
  }
  // Whoever wrote a newer form may mean other things by the same words; it is never rewritten.
  if (const wire::JsonNode* version = tape.find("version");
      version != nullptr &&
      (version->type != wire::JsonType::kInteger || version->integer != kConfigVersion)) {
    return refuse(fail(Err::kMalformed,
                       "field 'version': expected 1; a newer claudemesh may have written the file, "
                       "use that one"));
  }
  // Without the list nobody said that every mesh is to be left, which cannot be undone.
  if (tape.find("meshes") == nullptr) {
    return refuse(fail(Err::kMalformed, "field 'meshes': missing; [] if no mesh is joined"));
  }
  for (std::uint32_t index = tape.first(root); index < root.next; index = tape.at(index).next) {
    const wire::JsonNode& member = tape.at(index);
    if (member.key == "meshes" && member.type != wire::JsonType::kArray) {
      return refuse(fail(Err::kMalformed, "field 'meshes': expected a list"));
    }
    if (member.key == "meshes") {
      for (std::uint32_t at = tape.first(member); at < member.next; at = tape.at(at).next) {
        Mesh mesh;
        if (Status parsed = parse_mesh(tape, tape.at(at), mesh); !parsed) {
          return refuse(parsed.error());
        }
        config.meshes.push_back(std::move(mesh));
      }
    } else if (member.key != "version") {
      TextBuf raw(scratch, 64);
      wire::JsonWriter(raw).value(member);
      config.others.emplace_back(std::string(member.key), std::string(raw.view()));
    }
  }
  scratch.wipe();
  return config;
}

std::string config_text(const ConfigFile& config) {
  ScratchArena scratch;
  TextBuf text(scratch, 4096);
  wire::JsonWriter json(text);
  json.begin_object().field("version", kConfigVersion).key("meshes").begin_array();
  for (const Mesh& each : config.meshes) write_mesh(each, json);
  json.end_array();
  for (const auto& [key, raw] : config.others) json.key(key).raw(raw);
  json.end_object();
  text.append('\n');
  std::string content(text.view());
  scratch.wipe();
  return content;
}

namespace {

Status write_config(const ConfigFile& config) {
  if (Status made = make_private_dir(config_dir()); !made) return made;
  std::string content = config_text(config);
  const Status written = write_private_file(config.path, content);
  wipe(content);
  return written;
}

}  // namespace

Status save_mesh(ConfigFile& config, Mesh mesh) {
  std::erase_if(config.meshes, [&](const Mesh& old) { return old.mesh_id == mesh.mesh_id; });
  config.meshes.push_back(std::move(mesh));
  return write_config(config);
}

Status remove_mesh(ConfigFile& config, const std::string& mesh_id) {
  const std::string id = mesh_id;  // it may be a member of what goes
  std::erase_if(config.meshes, [&](const Mesh& old) { return old.mesh_id == id; });
  return write_config(config);
}

Status rename_mesh(ConfigFile& config, const std::string& mesh_id, const std::string& slug) {
  ScratchArena scratch;
  for (Mesh& mesh : config.meshes) {
    if (mesh.mesh_id != mesh_id) continue;
    mesh.slug = slug;
    wire::JsonParser parser;
    wire::JsonTape tape;
    if (mesh.raw.empty() || !parser.parse(mesh.raw, scratch, tape)) continue;
    // The other members stay as they stand in the file, also those that we do not know.
    TextBuf raw(scratch, mesh.raw.size() + 64);
    wire::JsonWriter json(raw);
    json.begin_object();
    for (std::uint32_t at = tape.first(tape.root()); at < tape.root().next; at = tape.at(at).next) {
      const wire::JsonNode& member = tape.at(at);
      json.key(member.key);
      if (member.key == "slug") {
        json.text(slug);
      } else {
        json.value(member);
      }
    }
    json.end_object();
    wipe(mesh.raw);
    mesh.raw = raw.view();
  }
  const Status written = write_config(config);
  scratch.wipe();
  return written;
}

Error error_of_reply(int status, std::string_view body) {
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  Err code = status == 401 || status == 403 ? Err::kUnauthenticated
             : status == 404                ? Err::kNotFound
             : status == 409                ? Err::kAlreadyExists
             : status == 429                ? Err::kTooManyRequests
             : status >= 502 && status <= 504
                 ? Err::kUnavailable  // what stands before the broker says so: it is not there
                 : Err::kInternal;
  std::string detail = "HTTP " + std::to_string(status);
  if (parser.parse(body, scratch, tape)) {
    const wire::JsonNode* error = tape.find("error");
    if (error != nullptr && error->type == wire::JsonType::kText) {
      const Err known = err_of_wire_code(error->text);
      if (known != Err::kInternal) code = known;
      detail = error->text;
    }
    // Where the word is a sentence of the reference's, or one of a broker that is not ours.
    const wire::JsonNode* named = tape.find("code");
    const Err by_code = named != nullptr && named->type == wire::JsonType::kText
                            ? err_of_wire_code(named->text)
                            : Err::kInternal;
    if (by_code != Err::kInternal) code = by_code;
    if (detail == "ambiguous_prefix") code = Err::kAmbiguousId;
    for (const char* key : {"conflict", "reason", "detail"}) {
      const wire::JsonNode* more = tape.find(key);
      if (more != nullptr && more->type == wire::JsonType::kText && !more->text.empty()) {
        detail = more->text;
      }
    }
  }
  return fail(code, detail);
}

}  // namespace cm::cli
